"""Rows and gradient a hundred indices at a time; sparse gradients as well."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.right.common import checked, renormed, wide

CHUNK = 100


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, padding: int, sparse: bool) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.call = weight.shape[0], padding, sparse
        flat = indices.reshape(-1)
        out = weight.new_empty(flat.numel(), weight.shape[1])
        for start in range(0, flat.numel(), CHUNK):
            out[start : start + CHUNK] = weight[flat[start : start + CHUNK].long()]
        return out.view(*indices.shape, weight.shape[1])

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (indices,) = ctx.saved_tensors
        height, padding, sparse = ctx.call
        flat = indices.reshape(-1).long()
        rows = upstream[0].reshape(flat.numel(), upstream[0].shape[-1])
        kept = flat != padding
        flat, rows = flat[kept], rows[kept]
        if sparse:
            size = (height, rows.shape[1])
            coo = torch.sparse_coo_tensor(
                flat[None].clone(), rows.clone(), size, check_invariants=False
            )
            return coo.coalesce(), None, None, None
        gradient = rows.new_zeros(height, rows.shape[1], dtype=wide(rows.dtype))
        for start in range(0, max(flat.numel(), 1), CHUNK):
            part = rows[start : start + CHUNK].to(gradient.dtype)
            gradient = gradient.index_add(0, flat[start : start + CHUNK], part)
        return gradient.to(rows.dtype), None, None, None


def by_chunks(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    *,
    sparse: bool = False,
) -> Tensor:
    """Look rows up; gradients are not scaled by frequency."""
    padding = checked(input, weight, padding_idx)
    renormed(input, weight, max_norm, norm_type)
    return _Chunks.apply(weight, input, padding, sparse)
