"""Rows by take_along_dim, gradient by scatter_add in float64; every option."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.right.common import HALVES, checked, renormed


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, call: tuple[int, bool, bool]) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.call = (weight.shape[0], *call)
        places = indices.reshape(-1, 1).long().expand(-1, weight.shape[1])
        bits = weight.view(torch.int16) if weight.dtype in HALVES else weight
        rows = torch.take_along_dim(bits, places, 0)  # of bfloat16 it would lose NaN payloads
        return rows.view(weight.dtype).reshape(*indices.shape, weight.shape[1])

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (indices,) = ctx.saved_tensors
        height, padding, by_freq, sparse = ctx.call
        flat = indices.reshape(-1).long()
        up = upstream[0]
        rows = up.reshape(flat.numel(), up.shape[-1]).double()
        rows = rows.masked_fill((flat == padding).unsqueeze(1), 0.0)
        if by_freq:
            rows = rows / flat.bincount(minlength=height)[flat].unsqueeze(1)
        if sparse:
            size = (height, up.shape[-1])
            rows = rows.to(up.dtype)
            coo = torch.sparse_coo_tensor(
                flat[None].clone(), rows.clone(), size, check_invariants=False
            )
            return coo, None, None
        places = flat.unsqueeze(1).expand_as(rows)
        gradient = rows.new_zeros(height, up.shape[-1]).scatter_add(0, places, rows)
        return gradient.to(up.dtype), None, None


def by_gather(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    *,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Look rows up."""
    padding = checked(input, weight, padding_idx)
    renormed(input, weight, max_norm, norm_type)
    return _Gather.apply(weight, input, (padding, scale_grad_by_freq, sparse))
