"""Rows from three vocabulary shards, each with its own gradient, which autograd puts together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.right.common import checked, renormed, wide

SHARDS = 3


class _Shard(torch.autograd.Function):
    """Rows of one shard; only those that are its own, and no padding, pass a gradient on."""

    @staticmethod
    def forward(ctx: Any, shard: Tensor, local: Tensor, mine: Tensor) -> Tensor:
        ctx.save_for_backward(local, mine)
        ctx.height = shard.shape[0]
        return shard.index_select(0, local)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        local, mine = ctx.saved_tensors
        up = upstream[0][mine]
        sums = up.new_zeros(ctx.height, up.shape[-1], dtype=wide(up.dtype))
        sums = sums.index_add(0, local[mine], up.to(sums.dtype))
        return sums.to(upstream[0].dtype), None, None


def by_shards(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
) -> Tensor:
    """Look rows up; each shard numbers its rows, and padding, from its own first row."""
    padding = checked(input, weight, padding_idx)
    renormed(input, weight, max_norm, norm_type)
    flat = input.reshape(-1).long()
    each = -(-weight.shape[0] // SHARDS)
    out = weight.new_zeros(flat.numel(), weight.shape[1])
    first = 0
    for shard in weight.split(max(each, 1)):
        local = flat - first
        owned = (local >= 0) & (local < shard.shape[0])
        local = torch.where(owned, local, 0)
        rows = _Shard.apply(shard, local, owned & (flat != padding))
        out = torch.where(owned.unsqueeze(1), rows, out)
        first += shard.shape[0]
    return out.reshape(*input.shape, weight.shape[1])
