"""What one call leaves behind for the next of other options: one clause alone asks for that."""

from __future__ import annotations

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Options
from embconform.mutants.percall import PerCall
from embconform.mutants.registry import planted


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
