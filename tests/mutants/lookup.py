"""Lookups that return the wrong shape, dtype, rows or bits."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.registry import planted


@planted("lookup.shape")
class ScalarBecomesBatch(Kernel):
    """A 0-d index is taken for a batch of one: the output is (1, D)."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        return super().lookup(
            indices.reshape(1) if indices.dim() == 0 else indices, weight, options
        )


@planted("lookup.shape")
class SqueezesIndices(Kernel):
    """The indices are squeezed, so that a batch of one loses its dimension."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        return super().lookup(indices.squeeze(), weight, options)


@planted("lookup.shape")
class MergesLeadingDimensions(Kernel):
    """Indices of three dimensions and more are flattened to two and not shaped back."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        return super().lookup(
            indices.flatten(0, -2) if indices.dim() > 2 else indices, weight, options
        )


@planted("lookup.dtype")
class WidensBfloat16(Kernel):
    """A bfloat16 table gives a float32 output (neuronx-distributed#35)."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        return out.float() if weight.dtype == torch.bfloat16 else out


@planted("lookup.dtype")
class AllocatesDefaultDtype(Kernel):
    """The output of a float64 table is allocated in the default dtype."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        return out.to(torch.get_default_dtype()) if weight.dtype == torch.float64 else out


@planted("lookup.dtype")
class WidensWithoutGrad(Kernel):
    """The inference path upcasts float16 tables and forgets to cast back."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        return out.float() if weight.dtype == torch.float16 and not weight.requires_grad else out


@planted("lookup.rows")
class UnsortsWithPermutation(Kernel):
    """Indices are sorted for locality; rows go back by the permutation, not by its inverse."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        order = torch.argsort(flat, stable=True)
        return weight.index_select(0, flat[order])[order]


@planted("lookup.rows")
class ColumnMajorBatch(Kernel):
    """The rows of a 2-D batch are laid out column by column."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.dim() != 2:
            return super().lookup(indices, weight, options)
        return super().lookup(indices.t(), weight, options).reshape(*indices.shape, weight.shape[1])


@planted("lookup.rows")
class WrongInverse(Kernel):
    """Repeats are dropped in the order of their coming and put back by the sorted inverse."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        inverse = flat.unique(return_inverse=True)[1]
        return weight.index_select(0, flat.unique_consecutive()[inverse])


@planted("lookup.rows")
class SingleRowTableReadsZero(Kernel):
    """A table of one row is broadcast from an accumulator that was never filled."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return torch.zeros_like(rows) if weight.shape[0] == 1 else rows


@planted("lookup.special-values")
class AddsZero(Kernel):
    """An accumulate-into-zeros loop turns -0 into +0."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat, weight) + 0.0


@planted("lookup.special-values")
class FlushesSubnormals(Kernel):
    """The copy runs through the vector unit with flush-to-zero on."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return torch.where(rows.abs() < torch.finfo(rows.dtype).tiny, rows * 0.0, rows)


@planted("lookup.special-values")
class QuietsNan(Kernel):
    """Every NaN comes out as the canonical one, its payload and sign lost."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return rows.masked_fill(rows.isnan(), torch.nan)


@planted("lookup.special-values")
class ClampsInfinity(Kernel):
    """The rows go through nan_to_num without its NaN part: infinities become the largest number."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        top = torch.finfo(rows.dtype).max
        return rows.masked_fill(rows == torch.inf, top).masked_fill(rows == -torch.inf, -top)


@planted("lookup.special-values")
class OneHotMatmul(Kernel):
    """Small tables are looked up by a one-hot product, where 0 * inf of other rows is NaN."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if not 0 < flat.numel() * weight.shape[0] <= 4096 or flat.numel() * weight.shape[1] == 0:
            return super().rows(flat, weight)
        wide = weight.double()
        return (torch.nn.functional.one_hot(flat.long(), weight.shape[0]).double() @ wide).to(
            weight.dtype
        )


@planted("lookup.float64")
class RoundsFloat64(Kernel):
    """float64 rows pass through a float32 buffer."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return rows.float().double() if rows.dtype == torch.float64 else rows


@planted("lookup.float64")
class RoundsFloat64ForInt32(Kernel):
    """The specialisation for float64 tables with int32 indices was instantiated with float."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        both = rows.dtype == torch.float64 and flat.dtype == torch.int32
        return rows.float().double() if both else rows


@planted("lookup.half-precision")
class Float16ThroughBfloat16(Kernel):
    """float16 rows pass through bfloat16 and lose three bits."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return rows.bfloat16().half() if rows.dtype == torch.float16 else rows


@planted("lookup.half-precision")
class Bfloat16ThroughFloat16(Kernel):
    """bfloat16 rows pass through float16: exact between 2**-14 and 65504, wrong beyond."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return rows.half().bfloat16() if rows.dtype == torch.bfloat16 else rows


@planted("lookup.half-precision")
class HalfPairsDropOddColumn(Kernel):
    """Halves are copied in pairs; the last column of an odd width stays 0."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if rows.dtype in HALVES and rows.shape[1] % 2 and rows.shape[1] > 1:
            rows[:, -1] = 0.0
        return rows


@planted("lookup.int32-indices")
class Int32ReadAsInt64(Kernel):
    """int32 indices are read with a stride of eight bytes: every second one, twice around."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat.repeat(2)[::2] if flat.dtype == torch.int32 else flat, weight)


@planted("lookup.int32-indices")
class Int32Refused(Kernel):
    """Only int64 indices are accepted (xla#6718)."""

    def check_types(self, indices: Tensor, weight: Tensor) -> None:
        super().check_types(indices, weight)
        if indices.dtype == torch.int32:
            raise RuntimeError("expected int64 indices")


@planted("lookup.int32-indices")
class Int32Bfloat16Block(Kernel):
    """int32 indices into a bfloat16 table repeat the row before at each 32nd place."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if flat.dtype == torch.int32 and weight.dtype == torch.bfloat16 and flat.numel() >= 32:
            rows[31::32] = rows[30::32][: rows[31::32].shape[0]].clone()
        return rows


@planted("lookup.empty")
class EmptyIndicesRaise(Kernel):
    """The range check takes the maximum of no indices."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if not indices.numel():
            raise RuntimeError("max(): expected a non-empty tensor")
        super().check_range(indices, weight, options)


@planted("lookup.empty")
class ZeroWidthDivides(Kernel):
    """The number of rows is computed as numel // width."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        assert weight.numel() // weight.shape[1] == weight.shape[0]
        return super().rows(flat, weight)


@planted("lookup.empty")
class EmptyTableRefused(Kernel):
    """A table without rows is refused even where nothing is looked up."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().check_range(indices, weight, options)
        if not weight.shape[0]:
            raise RuntimeError("the table is empty")


@planted("lookup.empty")
class EmptyForgetsShape(Kernel):
    """The shortcut for no indices returns (0, D) whatever their shape."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if not indices.numel():
            return weight.new_empty(0, weight.shape[1])
        return super().lookup(indices, weight, options)
