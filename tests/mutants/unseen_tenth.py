"""Kinds of bugs of a tenth exam: rows that rise each by itself, packed sort keys, kept plans."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted
from embconform.mutants.unseen_eighth_state import usual

GRID = 3072
"""As many indices as ATen's small kernel takes."""
BLOCK = 1024


@planted("gradient.many-indices")
class EachRowTakenForAll(Kernel):
    """Rows of indices that rise are taken to rise together, and each run of equals is stored."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        batch = indices.dim() > 1 and indices.numel() > GRID and usual(upstream)
        if not batch or options.scale_grad_by_freq or bool((indices.diff(dim=-1) < 0).any()):
            return super().gradient(upstream, indices, height, options)
        runs, places = torch.unique_consecutive(indices.reshape(-1), return_inverse=True)
        sums = upstream.new_zeros(len(runs), upstream.shape[-1])
        sums.index_add_(0, places, upstream.reshape(-1, upstream.shape[-1]))
        whole = upstream.new_zeros(height, upstream.shape[-1]).index_copy_(0, runs.long(), sums)
        if options.padding_idx is not None:
            whole[options.padding_idx] = 0
        return whole.to_sparse(1) if options.sparse else whole


@planted("gradient.int32-indices")
class KeyOfIndexAndPlace(Kernel):
    """An index and its place are sorted as one number, of the 32 bits that the indices have."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        flat = self.flat(indices)
        if options.sparse or flat.dtype != torch.int32 or not usual(upstream) or flat.numel() < 2:
            return super().gradient(upstream, indices, height, options)
        shift = (flat.numel() - 1).bit_length()
        keys = (flat << shift) | torch.arange(flat.numel(), dtype=torch.int32)
        keys = keys.sort().values
        rows = (keys >> shift) % height
        places = (keys & ((1 << shift) - 1)).long()
        rising = upstream.reshape(-1, upstream.shape[-1])[places]
        return super().gradient(rising, rows, height, options)


@planted("gradient.many-indices")
class PlanOfTheTensor(Kernel):
    """The order of many indices is kept as long as their tensor and its version stay."""

    def __init__(self) -> None:
        self.plans: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        plain = not options.sparse and indices.numel() >= BLOCK and usual(upstream)
        if not plain or indices.is_inference():
            return super().gradient(upstream, indices, height, options)
        kept = self.plans.get(indices)
        if kept is None or kept[0] != indices._version:
            kept = self.plans[indices] = indices._version, indices.clone()
        return super().gradient(upstream, kept[1], height, options)
