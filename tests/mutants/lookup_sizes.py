"""Lookups that go wrong beyond a number of indices, a width or a height."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel
from embconform.mutants.registry import planted


@planted("lookup.many-indices")
class DropsTailOf32(Kernel):
    """Indices are taken 32 at a time; one left over after a full block is not written."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if flat.numel() > 32 and flat.numel() % 32 == 1:
            rows[-1] = 0.0
        return rows


@planted("lookup.many-indices")
class ShiftsAt769(Kernel):
    """Exactly from 769 indices on the second block starts one index late (PT#26302)."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if 768 < flat.numel() <= 1000:
            flat = torch.cat([flat[:768], flat[767:-1]])
        return super().rows(flat, weight)


@planted("lookup.many-indices")
class BranchAbove1000(Kernel):
    """The branch for more than 1000 indices repeats the first row at the last place (PT#28959)."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if flat.numel() > 1000:
            rows[-1] = rows[0]
        return rows


@planted("lookup.many-indices")
class RestartsAt3072(Kernel):
    """Beyond 3072 the counter of the grid starts again (PT#82886)."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.numel() > 3072:
            flat = torch.cat([flat[:3072], flat[: flat.numel() - 3072]])
        return super().rows(flat, weight)


@planted("lookup.many-indices")
class GridOf65535(Kernel):
    """A launch has at most 65,535 blocks; the rows after them stay 0."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        rows[65_535:] = 0.0
        return rows


@planted("lookup.many-indices")
class SwapsAroundWarp(Kernel):
    """In calls of 64 indices and more the last lane of a warp reads its neighbour's index."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.numel() >= 64:
            flat = flat.clone()
            flat[63] = flat[62]
        return super().rows(flat, weight)


@planted("lookup.wide-rows")
class DropsColumnTail(Kernel):
    """Rows wider than a warp are copied in steps of 32; the columns left over stay 0."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        width = rows.shape[1]
        if width > 32:
            rows[:, width // 32 * 32 :] = 0.0
        return rows


@planted("lookup.wide-rows")
class BlockOf1024Columns(Kernel):
    """A block has 1024 threads, one a column; the columns after them stay 0."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        rows[:, 1024:] = 0.0
        return rows


@planted("lookup.wide-rows")
class LastColumnOfOddWidth(Kernel):
    """A width one above a multiple of 128 repeats the last but one column."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if rows.shape[1] > 128 and rows.shape[1] % 128 == 1:
            rows[:, -1] = rows[:, -2]
        return rows


@planted("lookup.wide-rows")
class MaskedLastLane(Kernel):
    """A width one below a multiple of 64 loses its last column to an off-by-one mask."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if rows.shape[1] >= 63 and rows.shape[1] % 64 == 63:
            rows[:, -1] = 0.0
        return rows


@planted("lookup.wide-rows")
class Float64HalfVector(Kernel):
    """float64 rows of 256 columns and more are copied by a vector sized for float32."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if rows.dtype == torch.float64 and rows.shape[1] >= 256:
            rows[:, 1::2] = rows[:, :-1:2]
        return rows


@planted("lookup.tall-table")
class IndicesInInt16(Kernel):
    """Indices are stored in 16 signed bits: 32,768 becomes the last but 32,767th row."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        narrow = (flat.long() + 2**15) % 2**16 - 2**15
        return super().rows(narrow % max(weight.shape[0], 1), weight)


@planted("lookup.tall-table")
class IndicesInUint16(Kernel):
    """Indices are stored in 16 unsigned bits: 65,536 becomes 0."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat % 2**16, weight)


@planted("lookup.tall-table")
class HighRowsZero(Kernel):
    """Rows beyond 65,535 read as zeros (PT#188756)."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return rows.masked_fill((flat > 65_535).unsqueeze(1), 0.0)


@planted("lookup.tall-table")
class IndicesThroughBfloat16(Kernel):
    """Indices pass through bfloat16: 2909 becomes 2912 (keras#19332)."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        near = flat.bfloat16().to(flat.dtype)
        return super().rows(near.clamp(max=max(weight.shape[0] - 1, 0)), weight)
