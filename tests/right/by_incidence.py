"""Rows by advanced indexing, gradient by a product with the sparse incidence matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.right.common import checked, wide


class _Incidence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.call = weight.shape[0], padding
        rows = weight[indices.reshape(-1).long()]
        return rows.reshape(*indices.shape, weight.shape[1])

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (indices,) = ctx.saved_tensors
        height, padding = ctx.call
        up = upstream[0]
        flat = indices.reshape(-1).long()
        rows = up.reshape(flat.numel(), up.shape[-1]).to(wide(up.dtype))
        places = torch.arange(flat.numel(), device=flat.device)[flat != padding]
        if not rows.numel() or not places.numel():
            return rows[places].sum() * up.new_zeros(height, up.shape[-1]), None, None
        ones = rows.new_ones(places.numel())
        size = (height, flat.numel())
        named = torch.stack([flat[places], places])
        incidence = torch.sparse_coo_tensor(named, ones, size, check_invariants=False)
        with torch.autocast(up.device.type, enabled=False):  # a product would be cast
            return torch.sparse.mm(incidence, rows).to(up.dtype), None, None


def by_incidence(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:  # noqa: A002
    """Look rows up; neither max_norm nor frequencies nor sparse gradients."""
    padding = checked(input, weight, padding_idx)
    return _Incidence.apply(weight, input, padding)
