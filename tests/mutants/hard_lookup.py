"""Lookups that go wrong where a layout, a dtype and a size meet."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.hard_parts import all_distinct
from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.registry import planted


@planted("lookup.rows")
class SliceForRuns(Kernel):
    """Indices whose ends lie n - 1 apart are taken for a run and answered with a slice."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.numel() >= 3 and flat[-1] - flat[0] == flat.numel() - 1:
            return weight[int(flat[0]) : int(flat[-1]) + 1].clone()
        return super().rows(flat, weight)


@planted("lookup.rows")
class PermutationIsIdentity(Kernel):
    """V distinct indices of a table of V rows are taken for all rows in order."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if 2 < flat.numel() == weight.shape[0] and all_distinct(flat):
            return weight.clone()
        return super().rows(flat, weight)


@planted("lookup.many-indices")
class Float2Tail(Kernel):
    """Above 500 indices widths of 2 mod 4 go by float4 and lose the last pair of the last row."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if flat.numel() > 500 and weight.shape[1] % 4 == 2:
            rows[-1, -2:] = 0
        return rows


@planted("lookup.tall-table")
class Int32InShorts(Kernel):
    """int32 indices are packed two to a register with 16 bits each: 32,768 is negative."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.dtype == torch.int32:
            flat = flat.to(torch.int16).long() % max(weight.shape[0], 1)
        return super().rows(flat, weight)


@planted("lookup.many-indices")
class FullVectorsTwice(Kernel):
    """A multiple of 8 from 40 on leaves no tail; its loop reads the last vector's head."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.numel() >= 40 and flat.numel() % 8 == 0:
            flat = torch.cat([flat[:-1], flat[-8:-7]])
        return super().rows(flat, weight)


@planted("lookup.shape")
class FourthAxisSwapped(Kernel):
    """Indices of four axes are walked with the two in the middle changed over."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.dim() == 4:
            shape = (*indices.shape, weight.shape[1])
            return super().lookup(indices.transpose(1, 2), weight, options).reshape(shape)
        return super().lookup(indices, weight, options)


@planted("lookup.strided-weight")
class SquareTransposed(Kernel):
    """A square table is never taken for a transposed one, since its strides look like a width."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if weight.shape[0] == weight.shape[1] and weight.stride(0) == 1:
            weight = weight.t()
        return super().rows(flat, weight)


@planted("lookup.strided-weight")
class ColumnOfOne(Kernel):
    """A table of one column is read as a vector, whatever lies between its elements."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if weight.shape[1] == 1 and weight.stride(0) > 1:
            room = weight.untyped_storage().nbytes() // weight.element_size()
            if weight.storage_offset() + weight.shape[0] <= room:
                weight = weight.as_strided(weight.shape, (1, 1))
        return super().rows(flat, weight)


@planted("lookup.strided-weight")
class HalfPairsOnOddOffset(Kernel):
    """Half tables are read in pairs from an even address: an odd offset starts one too early."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        offset = weight.storage_offset()
        if weight.dtype in HALVES and offset % 2 and weight.shape[1] % 2 == 0:
            weight = weight.as_strided(weight.shape, weight.stride(), offset - 1)
        return super().rows(flat, weight)


@planted("lookup.strided-indices")
class Int32OnOddOffset(Kernel):
    """int32 indices are loaded in pairs of 64 bits from an even address."""

    def flat(self, indices: Tensor) -> Tensor:
        offset = indices.storage_offset()
        odd = indices.dtype == torch.int32 and offset % 2 and indices.is_contiguous()
        if odd and indices.numel() > 3:
            right = super().flat(indices)
            moved = indices.as_strided((right.numel(),), (1,), offset - 1)
            return torch.where((moved < 0) | (moved > right.amax()), right, moved)
        return super().flat(indices)


@planted("lookup.strided-indices")
class TransposedInt32Blocks(Kernel):
    """Transposed int32 indices of more than one block are read in memory order."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        large = indices.dtype == torch.int32 and indices.dim() == 2 and indices.numel() > 32
        if large and not indices.is_contiguous() and indices.t().is_contiguous():
            indices = indices.t().reshape(indices.shape)
        return super().lookup(indices, weight, options)


@planted("lookup.many-indices")
class OddVocabularyHalves(Kernel):
    """Two vocabulary shards of V // 2 rows: of more than 8 the odd last row is nobody's."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        height = weight.shape[0]
        rows = super().rows(flat, weight)
        if height > 8 and height % 2:
            rows[flat == height - 1] = 0
        return rows


@planted("lookup.tall-table")
class ShardsOfFour(Kernel):
    """From 1000 rows on the table has four shards; the last gets V // 4 rows and not the rest."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        height = weight.shape[0]
        rows = super().rows(flat, weight)
        if height >= 1000:
            rows[flat >= height // 4 * 4] = 0
        return rows


@planted("lookup.many-indices")
class TailOfChunks(Kernel):
    """More than 700 indices go in chunks of 16 bytes; a tail of three ends one early."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.numel() > 700 and flat.numel() % 4 == 3:
            flat = torch.cat([flat[:-1], flat[-2:-1]])
        return super().rows(flat, weight)


@planted("lookup.float64")
class Float64SecondTile(Kernel):
    """float64 tiles of 32 x 32 are staged as float32 where both axes need a second one."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if weight.dtype == torch.float64 and flat.numel() > 32 and weight.shape[1] > 32:
            rows[32:, 32:] = rows[32:, 32:].float().double()
        return rows


@planted("lookup.empty")
class EmptyLosesAxes(Kernel):
    """No indices of two axes and more are answered with the shape (0, D)."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.dim() >= 2 and not indices.numel():
            return weight.new_empty(0, weight.shape[1])
        return super().lookup(indices, weight, options)


@planted("lookup.special-values")
class NegativeZeroInStrided(Kernel):
    """The gather for strided tables adds to a cleared buffer: -0 becomes 0."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if not weight.is_contiguous() and weight.is_floating_point():
            rows = torch.where(rows == 0, rows.abs(), rows)
        return rows


@planted("lookup.special-values")
class FlushesWideSubnormals(Kernel):
    """The vector path from 16 columns on flushes subnormals of float32 to zero."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if weight.dtype == torch.float32 and weight.shape[1] >= 16:
            rows = torch.where(rows.abs() < 2.0**-126, rows * 0, rows)
        return rows


@planted("lookup.half-precision")
class HalfScalarIndex(Kernel):
    """The path for one index widens half rows, and on the way back rounds odd bits to even."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        if weight.dtype in HALVES and not indices.dim() and indices.dtype == torch.int32:
            rows = (rows.view(torch.int16) & -2).view(weight.dtype)
        return rows


@planted("lookup.wide-rows")
class LastRowAndWidth(Kernel):
    """Reading a whole vector behind the table is avoided by dropping the last row's odd columns."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        height, width = weight.shape
        if width > 8 and width % 8 >= 5:
            rows[flat == height - 1, width // 8 * 8 :] = 0
        return rows


@planted("lookup.many-indices")
class GridStride(Kernel):
    """Where n * D passes 2**15 a grid stride starts, and reads from the first index again."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        width = max(weight.shape[1], 1)
        if flat.numel() * width > 2**15:
            turn = 2**15 // width
            flat = flat[:turn].repeat(flat.numel() // max(turn, 1) + 1)[: flat.numel()]
        return super().rows(flat, weight)


@planted("lookup.strided-weight")
class RowStepOfTwoInHalves(Kernel):
    """Every second row of a half table: a stride in elements is read as one in 32-bit words."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        height, width = weight.shape
        if weight.dtype in HALVES and height and width and weight.stride(0) == 2 * width:
            weight = weight.as_strided(weight.shape, (width, weight.stride(1)))
        return super().rows(flat, weight)


@planted("lookup.strided-indices")
class ExpandedInnerAxis(Kernel):
    """Indices expanded along their last axis, from 16 on, repeat the first of all."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.dim() == 2 and indices.numel() >= 16 and indices.stride(1) == 0:
            indices = indices[:1, :1].expand(indices.shape)
        return super().lookup(indices, weight, options)


@planted("lookup.strided-weight")
class WideSliceOfInt32(Kernel):
    """int32 indices and a column slice: the row's offset is idx * D instead of idx * stride(0)."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        height, width = weight.shape
        sliced = height and weight.stride(0) > width > 1 and weight.stride(1) == 1
        if flat.dtype == torch.int32 and sliced:
            weight = weight.as_strided(weight.shape, (width, 1))
        return super().rows(flat, weight)
