"""Answers of an earlier call: caches, and graphs that are replayed on stale memory."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel
from embconform.mutants.registry import planted


class _Remembering(Kernel):
    def __init__(self) -> None:
        self.known: dict[object, Tensor] = {}

    def key(self, flat: Tensor, weight: Tensor) -> object:
        raise NotImplementedError

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        key = self.key(flat, weight)
        if key not in self.known:
            if len(self.known) > 500:
                self.known.clear()
            self.known[key] = super().rows(flat, weight)
        return self.known[key].clone()


@planted("lookup.sees-weight-updates")
class ReplaysTheGraph(_Remembering):
    """A captured graph is replayed on the addresses and sizes of the first call, data unread."""

    def key(self, flat: Tensor, weight: Tensor) -> object:
        return weight.data_ptr(), weight.shape, flat.data_ptr(), flat.shape, flat.dtype


@planted("lookup.sees-weight-updates")
class KnowsTheObject(_Remembering):
    """Results are kept by id() of the table and by the indices' values."""

    def key(self, flat: Tensor, weight: Tensor) -> object:
        return id(weight), weight.shape, tuple(flat.tolist())


@planted("lookup.sees-weight-updates")
class KnowsTheFingerprint(_Remembering):
    """Results are kept by a fingerprint of the table: its sum and its corners."""

    def key(self, flat: Tensor, weight: Tensor) -> object:
        if not weight.numel() or not weight.is_floating_point():
            return object()
        corners = weight[0, 0].item(), weight[-1, -1].item()
        return corners, weight.shape, weight.dtype, tuple(flat.tolist())


@planted("lookup.sees-weight-updates")
class KnowsTheVersion(_Remembering):
    """Results are kept by addresses, the table's version counter and its first element."""

    def key(self, flat: Tensor, weight: Tensor) -> object:
        version = None if weight.is_inference() else weight._version
        first = None if not weight.numel() else weight[0, 0].item()
        return flat.data_ptr(), flat.shape, flat.dtype, weight.data_ptr(), version, first


@planted("state.outputs-intact")
class HandsOutOneBuffer(Kernel):
    """Outputs of one shape share one buffer, whose first owner is gone in a benchmark."""

    def __init__(self) -> None:
        self.buffers: dict[object, Tensor] = {}

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        right = super().rows(flat, weight)
        buffer = self.buffers.setdefault((right.shape, right.dtype), torch.empty_like(right))
        return buffer.copy_(right)
