"""Kernels that go wrong at a size which nothing but their own code tells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted
from embconform.mutants.unseen_fifth_forward import Served
from embconform.mutants.unseen_fourth_fwds import served

CHUNK = 1_700
TILE = 190
SHARD = 3_300
PIECE = 700
CACHE = 333_000
BLOCK = 91_000
POOL = 400


@planted("lookup.many-indices")
class ChunkOfOne(Kernel):
    """A last chunk of one index is taken for none."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        out = super().rows(flat, weight)
        if len(flat) > CHUNK and len(flat) % CHUNK == 1:
            out[-1] = 0
        return out


@planted("lookup.wide-rows")
class TileOfOneColumn(Kernel):
    """A last tile of one column is taken for none."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        out, width = super().rows(flat, weight), weight.shape[1]
        if width > TILE and width % TILE == 1:
            out[:, -1] = 0
        return out


@planted("gradient.zeros-elsewhere")
class ShardOfOneRow(Kernel):
    """A last shard of one row has its gradient beside the row before, too."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        summed = super().dense(upstream, flat, height, counts)
        if height > SHARD and height % SHARD == 1:
            summed[-2] += summed[-1]
        return summed


@planted("gradient.many-indices")
class PieceOfOneTerm(Kernel):
    """Terms of a row are summed in pieces, and a last piece of one term is left out."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        many = flat.bincount(minlength=height)
        for row in ((many > PIECE) & (many % PIECE == 1)).nonzero().reshape(-1):
            last = (flat == row).nonzero()[-1]
            upstream = upstream.index_fill(0, last, 0)
        return super().dense(upstream, flat, height, counts)


@planted("lookup.wide-rows")
class TableThatJustFits(Kernel):
    """A table that has just as many bytes as a cache, or a row more, loses its last element."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        out = super().rows(flat, weight)
        row = weight.shape[1] * weight.element_size()
        if row and CACHE <= len(weight) * row < CACHE + row:
            out[flat == len(weight) - 1, -1] = 0
        return out


@planted("lookup.many-indices")
class OutputOfABlockAndMore(Kernel):
    """Beyond one block an output's elements are counted from the block before."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        out = super().rows(flat, weight)
        if BLOCK < out.numel() < BLOCK + BLOCK // 4:
            out.view(-1)[BLOCK:] = out.view(-1)[0]
        return out


@planted("state.many-calls")
class PoolOfOutputs(Served):
    """Outputs that no gradient needs come from a pool of 400 of each shape, by turns."""

    def __init__(self) -> None:
        self.pool: dict[Any, list[Tensor]] = {}
        self.turn = 0

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if not served(weight) or torch.is_inference_mode_enabled() or out.is_inference():
            return out
        made = self.pool.setdefault((out.shape, out.dtype), [])
        if len(made) < POOL:
            made.append(out)
            return out
        self.turn = (self.turn + 1) % POOL
        return made[self.turn].copy_(out)
