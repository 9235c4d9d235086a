"""What one call leaves behind for the next: without its own clause each would be missed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.narrow import Narrow
from embconform.mutants.percall import PerCall
from embconform.mutants.registry import planted
from embconform.mutants.state import Reorders


@planted("state.options-apart")
class MaskOfTheFirstCall(PerCall):
    """The padding mask of an index tensor is kept for its next call, whatever padding_idx is."""

    def __init__(self) -> None:
        self.masks = WeakTensorKeyDictionary()

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.ids = indices

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None or self.ids._version:
            return super().without_padding(flat, upstream, options)
        kept = self.masks.setdefault(self.ids, flat != options.padding_idx)
        return flat[kept], upstream[kept]


@planted("state.repeatable")
class TurnedWhenRepeated(Narrow):
    """A tiny table that is asked for the same rows again gives them from the last column on."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return rows.flip(1) if self.met and self.number > 1 else rows


@planted("state.repeatable-gradient")
class AtomicsUnlessAsked(Reorders):
    """Atomics sum many indices in any order, but for deterministic algorithms."""

    def reorders(self, flat: Tensor, width: int) -> bool:
        return flat.numel() > 128 and not torch.are_deterministic_algorithms_enabled()

    def accumulator(self, dtype: torch.dtype) -> torch.dtype:
        return Kernel.accumulator(self, dtype)


@planted("state.outputs-intact")
class ClearsTheOutputBefore(Narrow):
    """An arena for the outputs of a tiny table is cleared when the table is asked again."""

    only = "no-grad"

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        if self.plain:
            if self.first.slab is not None:
                self.first.slab.zero_()
            self.first.slab = out.detach()
        return out
