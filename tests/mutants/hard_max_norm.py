"""max_norm that goes wrong where a norm, a layout, a count and a mode meet."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from embconform.mutants.hard_parts import Noted, all_distinct, is_sorted
from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.percall import rank_among_equals
from embconform.mutants.registry import planted


class Forgets(Noted):
    """A right embedding that leaves some of the rows unbounded."""

    def forgotten(self, named: Tensor) -> Tensor:
        return torch.zeros_like(named, dtype=torch.bool)

    def distinct(self, flat: Tensor) -> Tensor:
        named = super().distinct(flat)
        return named[~self.forgotten(named)] if named.numel() else named


class Again(Noted):
    """A right embedding that scales all rows a second time where a condition holds."""

    def at_fault(self, flat: Tensor) -> bool:
        return False

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if self.at_fault(self.flat(self.ids)):
            norms = self.norms(rows.double(), options.norm_type)
            factor = self.scale(norms, options.max_norm or 0.0)
            scaled = torch.where(over.unsqueeze(1), scaled * factor.unsqueeze(1), scaled)
        return over, scaled


@planted("max-norm.value")
class AtTheBoundHalves(Noted):
    """A row whose norm is exactly the bound is scaled in the float32 path for even widths."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if rows.dtype == torch.float32 and rows.shape[1] % 2 == 0 and options.norm_type == 2:
            over |= self.norms(rows.double(), 2.0) == options.max_norm
        return over, scaled


@planted("max-norm.once")
class TransposedRepeats(Again):
    """Transposed indices are made unique by a pass over neighbours in memory."""

    def at_fault(self, flat: Tensor) -> bool:
        adjacent = not all_distinct(flat)
        return not self.ids.is_contiguous() and self.ids.dim() == 2 and adjacent


@planted("max-norm.once")
class RepeatsAcrossChunks(Noted):
    """Chunks of 100 indices renorm in turn: a row of two chunks has its first norm used twice."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        flat = self.flat(indices)
        before = weight.clone() if flat.numel() > 100 else None
        super().renorm(indices, weight, options)
        if before is None or not weight.shape[1]:
            return
        both = flat[:100].unique()
        both = both[torch.isin(both, flat[100:])].long()
        old = before[both].double()
        norms = self.norms(old, options.norm_type)
        over = norms > (options.max_norm or 0.0)
        again = weight[both].double() * self.scale(norms, options.max_norm or 0.0).unsqueeze(1)
        weight[both[over]] = again[over].to(weight.dtype)


@planted("max-norm.norm-type")
class CubeOfOddWidth(Kernel):
    """norm_type=3 is unrolled by two; of an odd width the last column counts without its abs."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        if norm_type != 3 or rows.shape[1] % 2 == 0:
            return super().norms(rows, norm_type)
        powers = rows.abs() ** 3
        powers[:, -1] = rows[:, -1] ** 3
        return powers.sum(1).clamp(min=0) ** (1 / 3)


@planted("max-norm.norm-type")
class InfinityOfWideRows(Kernel):
    """norm_type=inf: from 33 columns on a warp's maxima are added up."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        if norm_type != float("inf") or rows.shape[1] <= 32:
            return super().norms(rows, norm_type)
        return sum(part.abs().amax(1) for part in rows.split(32, 1))


@planted("max-norm.norm-type")
class OneNormOfHalves(Noted):
    """norm_type=1 of half tables falls through to the case of 2."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        if norm_type == 1 and self.table.dtype in HALVES:
            norm_type = 2.0
        return super().norms(rows, norm_type)


@planted("max-norm.norm-type")
class HalfNormByRoot(Noted):
    """norm_type=0.5 is computed with sqrt and squared once, in int32 calls not at all."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        if norm_type == 0.5 and self.ids.dtype == torch.int32:
            return rows.abs().sqrt().sum(1)
        return super().norms(rows, norm_type)


@planted("max-norm.many-indices")
class FirstHundredDistinct(Forgets):
    """A scratch list has room for 100 distinct rows; the others are not renormed."""

    def forgotten(self, named: Tensor) -> Tensor:
        return torch.arange(named.numel()) >= 100


@planted("max-norm.many-indices")
class LastRowOfOddBatch(Forgets):
    """The last row of the table is passed over if the number of indices is odd and above 8."""

    def forgotten(self, named: Tensor) -> Tensor:
        odd = self.ids.numel() % 2 == 1 and self.ids.numel() > 8
        return (named == self.table.shape[0] - 1) & odd


@planted("max-norm.padding-row")
class PaddingRowWithFrequency(Forgets):
    """The padding row is renormed, unless the indices have been counted without it."""

    def forgotten(self, named: Tensor) -> Tensor:
        if self.options.padding_idx is None or not self.options.scale_grad_by_freq:
            return super().forgotten(named)
        return named == self.options.padding_idx


@planted("max-norm.padding-row")
class PaddingRowUnderNoGrad(Forgets):
    """Under no_grad the padding row is left out of the renorm."""

    def forgotten(self, named: Tensor) -> Tensor:
        if self.options.padding_idx is None or self.grad_mode:
            return super().forgotten(named)
        return named == self.options.padding_idx


@planted("max-norm.without-grad")
class RenormNeedsLeaf(Noted):
    """A trainable table under no_grad is renormed in float16."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if self.table.requires_grad and not self.grad_mode:
            scaled = scaled.bfloat16().double()
        return over, scaled


@planted("max-norm.strided-weight")
class TransposedHalfRenorm(Noted):
    """A transposed half table is renormed by columns, as if it were contiguous."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if weight.dtype in HALVES and weight.stride(0) == 1 and weight.shape[1] > 1:
            return
        super().renorm(indices, weight, options)


@planted("max-norm.strided-weight")
class SlicedNormOfNeighbour(Noted):
    """A column slice and norm_type other than 2: the norm reads on into the columns behind."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        height, width = self.table.shape
        if height > 1 and self.table.stride(0) > width > 0 and options.norm_type != 2:
            return over, scaled * 0.9
        return over, scaled


@planted("max-norm.straight-through")
class ThroughScaleOfRepeats(Noted):
    """The gradient of a row that was renormed and occurs more than once is divided by the count."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        self.over: Tensor | None = None
        if options.max_norm is not None and weight.shape[1] and indices.numel():
            norms = self.norms(weight.detach().double(), options.norm_type)
            self.over = norms > options.max_norm

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.over is not None and flat.numel():
            times = torch.bincount(flat, minlength=height)[flat]
            factor = torch.where(self.over[flat], times, 1).unsqueeze(1)
            upstream = upstream / factor.to(upstream.dtype)
        return super().dense(upstream, flat, height, counts)


@planted("max-norm.straight-through")
class SparseThroughScale(Noted):
    """With sparse=True the values of renormed rows are multiplied by the bound."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.options.max_norm is not None and self.options.max_norm > 0:
            upstream = upstream * min(self.options.max_norm, 1.0)
        return super().sparse(upstream, flat, height, counts)


@planted("max-norm.in-place")
class RenormsCopyOfInt32Strided(Noted):
    """int32 indices and a strided table: a packed copy is renormed and not written back."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        strided = not weight.is_contiguous() and weight.numel() > 0
        if indices.dtype != torch.int32 or options.max_norm is None or not strided:
            return super().forward(indices, weight, options)
        with torch.no_grad():
            packed = weight.detach().clone()
        out = super().forward(indices, packed, options)
        plain = super().forward(indices, weight, replace(options, max_norm=None))
        plain.data.copy_(out)
        return plain


@planted("max-norm.only-looked-up-rows")
class RenormsBetween(Noted):
    """Of sorted indices the rows between the first and the last are renormed as one block."""

    def distinct(self, flat: Tensor) -> Tensor:
        if flat.numel() > 1 and is_sorted(flat):
            return torch.arange(int(flat[0]), int(flat[-1]) + 1)
        return super().distinct(flat)


@planted("max-norm.zero-bound")
class ZeroBoundOfFloat64(Noted):
    """max_norm=0 in float64 leaves rows of norm above 1 as they are: 0 / (norm + 1e-7) > 1e-9."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if options.max_norm == 0 and self.table.dtype == torch.float64:
            over = over & (self.norms(rows, options.norm_type) < 1)
        return over, scaled


@planted("max-norm.once")
class ManyRepeatsOfOneRow(Again):
    """More than 64 equal indices overflow the list of seen rows, which is then started anew."""

    def at_fault(self, flat: Tensor) -> bool:
        return bool(flat.numel() and rank_among_equals(flat.long()).amax() >= 64)


@planted("max-norm.wide-rows")
class NormOfWidthTwoModFour(Kernel):
    """Widths of 2 mod 4 above 4: the last pair of columns counts for the norm at half."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        if rows.shape[1] % 4 == 2 and rows.shape[1] > 4:
            rows = torch.cat([rows[:, :-2], rows[:, -2:] / 2], 1)
        return super().norms(rows, norm_type)


@planted("state.options-apart")
class SecondCallOtherNormType(Kernel):
    """The norm is kept per row and bound; a later call with another norm_type takes the old one."""

    def __init__(self) -> None:
        self.kinds: dict[object, float] = {}

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        kind = self.kinds.setdefault(weight.data_ptr(), options.norm_type)
        super().renorm(indices, weight, replace(options, norm_type=kind))
