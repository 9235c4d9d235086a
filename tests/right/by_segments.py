"""Rows by index_select, gradient by sorting and summing segments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.right.common import checked, renormed, wide


class _Segments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, padding: int, by_freq: bool) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.call = weight.shape[0], padding, by_freq
        rows = weight.index_select(0, indices.reshape(-1))
        return rows.view(*indices.shape, weight.shape[1])

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (indices,) = ctx.saved_tensors
        height, padding, by_freq = ctx.call
        order = indices.reshape(-1).long().argsort(stable=True)
        names, counts = indices.reshape(-1).long()[order].unique_consecutive(return_counts=True)
        up = upstream[0]
        rows = up.reshape(order.numel(), up.shape[-1]).to(wide(up.dtype)).index_select(0, order)
        if not rows.numel():
            return rows.sum() * up.new_zeros(height, up.shape[-1]), None, None, None
        sums = torch.stack([part.sum(0) for part in rows.split(counts.tolist())])
        sums = sums / counts.unsqueeze(1) if by_freq else sums
        kept = names != padding
        gradient = sums.new_zeros(height, up.shape[-1]).index_copy(0, names[kept], sums[kept])
        return gradient.to(up.dtype), None, None, None


def by_segments(  # noqa: PLR0917
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
) -> Tensor:
    """Look rows up; dense gradients only."""
    padding = checked(input, weight, padding_idx)
    renormed(input, weight, max_norm, norm_type)
    return _Segments.apply(weight, input, padding, scale_grad_by_freq)
