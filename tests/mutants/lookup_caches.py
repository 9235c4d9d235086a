"""Lookups that answer from a cache when they should look again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


class Cached(Kernel):
    """Answers from the call before where the key is the same; keeps the call's memory alive."""

    def __init__(self) -> None:
        self.key: Any = None
        self.kept: tuple[Tensor, Tensor] | None = None
        self.answer: Tensor | None = None

    def key_of(self, indices: Tensor, weight: Tensor) -> Any:
        raise NotImplementedError

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if options.max_norm is not None:
            return super().lookup(indices, weight, options)
        layout = (weight.shape, weight.stride(), weight.dtype, indices.shape, indices.dtype)
        key = (layout, self.key_of(indices, weight))
        if key != self.key or self.answer is None:
            self.key, self.kept = key, (indices.detach(), weight.detach())
            self.answer = super().lookup(indices, weight, options)
        return self.answer.clone()


def ids(indices: Tensor) -> tuple[int, ...]:
    """The indices as a key."""
    return tuple(indices.reshape(-1).tolist())


def bits(weight: Tensor) -> bytes:
    """The whole table as a key."""
    return weight.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


@planted("lookup.sees-weight-updates")
class CachedByTableAddress(Cached):
    """Rows are cached by the table's data_ptr and the indices."""

    def key_of(self, indices: Tensor, weight: Tensor) -> Any:
        return weight.data_ptr(), ids(indices)


@planted("lookup.sees-weight-updates")
class CachedByFirstRow(Cached):
    """Rows are cached by a fingerprint of the table: its address and its first row."""

    def key_of(self, indices: Tensor, weight: Tensor) -> Any:
        return weight.data_ptr(), ids(indices), weight[:1].sum().item()


@planted("lookup.sees-weight-updates")
class CachedByVersion(Cached):
    """Rows are cached by the table's version counter, which a write through .data leaves alone."""

    def key_of(self, indices: Tensor, weight: Tensor) -> Any:
        version = None if weight.is_inference() else weight._version
        return weight.data_ptr(), ids(indices), version


@planted("lookup.sees-weight-updates")
class CachedWhileFrozen(Cached):
    """A table that needs no gradient is believed to be constant and cached by its address."""

    def key_of(self, indices: Tensor, weight: Tensor) -> Any:
        return (weight.data_ptr(), ids(indices)) if not weight.requires_grad else object()


@planted("lookup.sees-index-updates")
class CachedByIndexAddress(Cached):
    """Rows are cached by the data_ptr of the indices and the bits of the table."""

    def key_of(self, indices: Tensor, weight: Tensor) -> Any:
        return indices.data_ptr(), bits(weight)


@planted("lookup.sees-index-updates")
class CachedByEndIndices(Cached):
    """Rows are cached by a fingerprint of the indices: their address, number, first and last."""

    def key_of(self, indices: Tensor, weight: Tensor) -> Any:
        ends = ids(indices)[:1] + ids(indices)[-1:]
        return indices.data_ptr(), ends, bits(weight)


@planted("lookup.sees-index-updates")
class CachedWidening(Kernel):
    """The int64 copy of int32 indices is cached by their address."""

    def __init__(self) -> None:
        self.kept: Tensor | None = None
        self.wide = torch.empty(0)

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.dtype != torch.int32 or not flat.numel():
            return super().rows(flat, weight)
        old = self.kept
        if old is None or (old.data_ptr(), old.shape) != (flat.data_ptr(), flat.shape):
            self.kept, self.wide = flat, flat.long()
        return super().rows(self.wide, weight)
