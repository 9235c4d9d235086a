"""Rows element by element out of the flattened table, gradient by a weighted histogram."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from embconform.right.common import checked, renormed


class _Elements(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, padding: int, by_freq: bool) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.call = weight.shape[0], padding, by_freq
        width = weight.shape[1]
        places = indices.long().unsqueeze(-1) * width + torch.arange(width, device=weight.device)
        return weight.take(places) if places.numel() else weight.new_empty(places.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Any) -> Any:
        (indices,) = ctx.saved_tensors
        height, padding, by_freq = ctx.call
        flat = indices.reshape(-1).long()
        up = upstream[0]
        width = up.shape[-1]
        kept = flat != padding
        rows = up.reshape(flat.numel(), width)[kept].double()
        names = flat[kept]
        places = names.unsqueeze(1) * width + torch.arange(width, device=up.device)
        sums = torch.bincount(places.flatten(), rows.flatten(), minlength=height * width)
        sums = sums.double().reshape(height, width)
        if by_freq:
            sums = sums / names.bincount(minlength=height).clamp(min=1).unsqueeze(1)
        return sums.to(up.dtype), None, None, None


def by_elements(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    *,
    scale_grad_by_freq: bool = False,
) -> Tensor:
    """Look rows up; the second derivative is refused."""
    padding = checked(input, weight, padding_idx)
    renormed(input, weight, max_norm, norm_type)
    return _Elements.apply(weight, input, padding, scale_grad_by_freq)
