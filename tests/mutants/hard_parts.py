"""What the hard planted bugs share: notes on a call, and the damage they do."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Options
from embconform.mutants.percall import PerCall


class Noted(PerCall):
    """A right embedding that knows all of its call in every part."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.ids = indices
        self.table = weight
        self.options = options
        self.grad_mode = torch.is_grad_enabled()
        self.inference = torch.is_inference_mode_enabled()


class Loses(Noted):
    """A right embedding whose gradient loses a term where a condition holds."""

    def at_fault(self, flat: Tensor) -> bool:
        return True

    def lost(self, flat: Tensor) -> Tensor:
        """Which of the indices go without their gradient."""
        lost = torch.zeros_like(flat, dtype=torch.bool)
        lost[-1:] = True
        return lost

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        flat = self.flat(indices)
        if flat.numel() and self.at_fault(flat):
            rows = upstream.reshape(flat.numel(), upstream.shape[-1])
            rows = rows.masked_fill(self.lost(flat).unsqueeze(1), 0.0)
            upstream = rows.reshape(upstream.shape)
        return super().gradient(upstream, indices, height, options)


class LeaksPadding(Noted):
    """A right embedding that forgets its padding in the backward pass where a condition holds."""

    def at_fault(self, flat: Tensor) -> bool:
        return True

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if flat.numel() and self.at_fault(flat):
            return flat, upstream
        return super().without_padding(flat, upstream, options)


def is_contiguous(tensor: Tensor) -> bool:
    """Tell whether a tensor is contiguous and starts where its memory does."""
    return tensor.is_contiguous() and tensor.storage_offset() == 0


def is_sorted(flat: Tensor) -> bool:
    return bool((flat[1:] >= flat[:-1]).all())


def all_distinct(flat: Tensor) -> bool:
    return flat.unique().numel() == flat.numel()


def most_frequent(flat: Tensor) -> int:
    """How often the most frequent index occurs."""
    return int(torch.bincount(flat.long()).amax()) if flat.numel() else 0
