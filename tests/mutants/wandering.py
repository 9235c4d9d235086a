"""Kernels that go wrong after several steps, in an order that no clause is about."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


class _Dated(Kernel):
    """A kernel whose backward passes know in which of its states their lookup was made."""

    state: Any = 0

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if out.requires_grad:
            made = self.state
            out.register_hook(lambda upstream: self.since(made, upstream))
        return out

    def since(self, made: Any, upstream: Tensor) -> Tensor:
        """Give the upstream gradient that the pass goes on with."""
        return upstream


@planted("gradient.two-uses")
class DroppedByARefusal(_Dated):
    """A refused call resets the kernel, and passes of lookups before it give nothing."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError:
            self.state += 1
            raise

    def since(self, made: Any, upstream: Tensor) -> Tensor:
        return upstream if made == self.state else torch.zeros_like(upstream)


@planted("lookup.sees-index-updates")
class NoticesOneWrite(Kernel):
    """Indices are kept by their address, and compared till they differ once."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Any, ...], tuple[Tensor, bool]] = {}

    def flat(self, indices: Tensor) -> Tensor:
        flat = super().flat(indices)
        if not 4 < flat.numel() < 3_000 or indices.requires_grad or torch.compiler.is_compiling():
            return flat
        key = indices.data_ptr(), indices.shape, indices.dtype, id(indices)
        kept, written = self.kept.get(key, (flat.clone(), False))
        if not written and not torch.equal(kept, flat):
            kept, written = flat.clone(), True
        self.kept[key] = kept, written
        return kept
