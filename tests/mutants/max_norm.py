"""max_norm: rows renormed too often, too seldom, in the wrong place."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


@planted("max-norm.value")
class OneIndexNeverRenormed(Kernel):
    """A call with a single index is not renormed (PT#1057)."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if indices.numel() != 1:
            super().renorm(indices, weight, options)


@planted("max-norm.value")
class SharedNorm(Kernel):
    """The norm is taken over all looked-up rows together."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        norms = super().norms(rows, norm_type)
        return norms.norm(norm_type).expand_as(norms)


@planted("max-norm.value")
class ScalesBySquare(Kernel):
    """The scale is applied once when the norm is known and once more when the row is stored."""

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        return super().scale(norms, max_norm) ** 2


@planted("max-norm.value")
class ClampsComponents(Kernel):
    """Each component is clamped to the bound instead of the row being scaled."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, _ = super().bounded(rows, options)
        assert options.max_norm is not None
        return over, rows.clamp(-options.max_norm, options.max_norm)


@planted("max-norm.value")
class FastReciprocal(Kernel):
    """The scale comes from an approximate reciprocal, good to eleven bits."""

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        return max_norm * (1 / (norms + 1e-7)).half().double()


@planted("max-norm.value")
class ScalarIndexNeverRenormed(Kernel):
    """A 0-d index returns before the renorm."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if indices.dim():
            super().renorm(indices, weight, options)


@planted("max-norm.value")
class ScaleInFloat32(Kernel):
    """The scale of a float64 row is kept in float32."""

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        return super().scale(norms, max_norm).float().double()


@planted("max-norm.every-column")
class NormSkipsLastColumn(Kernel):
    """The loop over the columns stops one early."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        return super().norms(rows[:, :-1] if rows.shape[1] > 1 else rows, norm_type)


@planted("max-norm.every-column")
class NormSkipsFirstColumn(Kernel):
    """The accumulator starts as 0 and the loop at column 1."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        return super().norms(rows[:, 1:] if rows.shape[1] > 1 else rows, norm_type)


@planted("max-norm.every-column")
class NormOfFourColumns(Kernel):
    """The norm is summed in vectors of four; the columns left over do not count."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        whole = rows.shape[1] // 4 * 4
        return super().norms(rows[:, :whole] if whole else rows, norm_type)


class NormOfFirst(Kernel):
    """Takes the norm over the first columns only."""

    columns = 0

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        return super().norms(rows[:, : self.columns], norm_type)


@planted("max-norm.wide-rows")
class NormOfOneWarp(NormOfFirst):
    """One warp sums the norm: columns from the 32nd on do not count."""

    columns = 32


@planted("max-norm.wide-rows")
class NormOf1024(NormOfFirst):
    """A block of 1024 threads sums the norm, one column each."""

    columns = 1024


@planted("max-norm.wide-rows")
class NormKeepsLargestBlock(Kernel):
    """Rows wider than 128 are summed in blocks, of which only the largest survives."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        norms = super().norms
        return torch.stack([norms(part, norm_type) for part in rows.split(128, 1)]).amax(0)


class Rescales(Kernel):
    """Applies the scale as often as a row is named, where a condition holds."""

    def times(self, flat: Tensor, named: Tensor) -> Tensor:
        """How often each distinct row is scaled."""
        raise NotImplementedError

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        flat = self.flat(indices)
        named, inverse = flat.unique(return_inverse=True)
        before = weight.index_select(0, named).double()
        super().renorm(indices, weight, options)
        times = self.times(flat, inverse)
        again = times > 1
        if options.max_norm is None or not weight.shape[1] or not again.any():
            return
        over, _ = self.bounded(before, options)
        scale = self.scale(self.norms(before, options.norm_type), options.max_norm)
        more = before * (scale**times).unsqueeze(1)
        chosen = again & over
        weight.index_copy_(0, named[chosen].long(), more[chosen].to(weight.dtype))


@planted("max-norm.once")
class ScaledPerOccurrence(Rescales):
    """All norms are taken first; then each index scales its row (PT#44792)."""

    def times(self, flat: Tensor, named: Tensor) -> Tensor:
        return named.bincount()


@planted("max-norm.once")
class ScaledPerRun(Rescales):
    """Repeats are dropped where they are adjacent: unique without sort (PT#44792)."""

    def times(self, flat: Tensor, named: Tensor) -> Tensor:
        return named.unique_consecutive().bincount()


@planted("max-norm.many-indices")
class ScaledPerBlock(Rescales):
    """Each block of 1024 indices drops its own repeats; rows in two blocks are scaled twice."""

    def times(self, flat: Tensor, named: Tensor) -> Tensor:
        total = torch.zeros(int(named.max()) + 1 if named.numel() else 0, dtype=torch.int64)
        for block in named.split(1024):
            total += block.bincount(minlength=total.numel()).clamp(max=1)
        return total


@planted("max-norm.many-indices")
class ScaledTwiceAbove1000(Rescales):
    """The parallel branch for more than 1000 indices scales its first row twice (PT#28959)."""

    def times(self, flat: Tensor, named: Tensor) -> Tensor:
        times = named.bincount().clamp(max=1)
        if named.numel() > 1000:
            times[named[0]] = 2
        return times


@planted("max-norm.many-indices")
class FirstOf768Renormed(Kernel):
    """Indices beyond the 768th are looked up but not renormed."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().renorm(self.flat(indices)[:768], weight, options)


@planted("max-norm.many-indices")
class BlockTailNotRenormed(Kernel):
    """One index left over after full blocks of 64 is not renormed."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        flat = self.flat(indices)
        tail = flat.numel() > 64 and flat.numel() % 64 == 1
        super().renorm(flat[:-1] if tail else flat, weight, options)


class RenormsCopy(Kernel):
    """Renorms a copy of the table and looks up there, where a condition holds."""

    def copies(self, indices: Tensor, weight: Tensor) -> bool:
        return True

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if options.max_norm is not None and self.copies(indices, weight):
            weight = weight.detach().clone()
            super().renorm(indices, weight, options)
        return super().lookup(indices, weight, options)

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if not self.copies(indices, weight):
            super().renorm(indices, weight, options)


@planted("max-norm.in-place")
class TableNeverRenormed(RenormsCopy):
    """The renorm returns a new table and leaves the parameter as it was (Paddle docs#6806)."""


@planted("max-norm.in-place")
class TableNotRenormedForInt32(RenormsCopy):
    """int32 indices take a path that renorms a copy of the table."""

    def copies(self, indices: Tensor, weight: Tensor) -> bool:
        return indices.dtype == torch.int32


@planted("max-norm.in-place")
class OutputScaledOnItsOwn(Kernel):
    """Output and table are scaled apart, in a different order, and differ in the last bit."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if self.before is None:
            return super().lookup(indices, weight, options)
        rows = super().lookup(indices, self.before, options).reshape(-1, weight.shape[1])
        self.before = None
        if not rows.numel() or options.max_norm is None:
            return super().lookup(indices, weight, options)
        norms = self.norms(rows, options.norm_type)
        scaled = rows / ((norms + 1e-7) / options.max_norm).unsqueeze(1).to(rows.dtype)
        scaled = torch.where((norms > options.max_norm).unsqueeze(1), scaled, rows)
        return scaled.reshape(*indices.shape, weight.shape[1])

    before: Tensor | None = None

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.before = weight.detach().clone()
        super().renorm(indices, weight, options)


class RenormsMore(Kernel):
    """Renorms rows that are not looked up."""

    def more(self, flat: Tensor, weight: Tensor) -> Tensor:
        """The rows that are renormed."""
        raise NotImplementedError

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if indices.numel():
            super().renorm(self.more(self.flat(indices), weight), weight, options)


@planted("max-norm.only-looked-up-rows")
class RenormsWholeTable(RenormsMore):
    """The whole table is renormed."""

    def more(self, flat: Tensor, weight: Tensor) -> Tensor:
        return torch.arange(weight.shape[0])


@planted("max-norm.only-looked-up-rows")
class RenormsPadsWithRowZero(RenormsMore):
    """The distinct indices are padded with 0 to a multiple of 32, and row 0 is renormed too."""

    def more(self, flat: Tensor, weight: Tensor) -> Tensor:
        distinct = flat.unique()
        return torch.nn.functional.pad(distinct, (0, -distinct.numel() % 32))


@planted("max-norm.only-looked-up-rows")
class RenormsWholeTableAbove1000(RenormsMore):
    """Where more than 1000 indices come the whole table is renormed, since that is cheaper."""

    def more(self, flat: Tensor, weight: Tensor) -> Tensor:
        return torch.arange(weight.shape[0]) if flat.numel() > 1000 else flat


@planted("max-norm.only-looked-up-rows")
class ScalesBaseRow(Kernel):
    """The row of a column slice is scaled over the whole row of its base."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        before = weight.detach().clone()
        super().renorm(indices, weight, options)
        height, width = weight.shape
        if not weight.numel() or weight.stride(1) != 1 or weight.stride(0) <= width:
            return
        gap = weight.storage_offset() + width
        room = weight.untyped_storage().nbytes() // weight.element_size()
        if gap + (height - 1) * weight.stride(0) < room:
            named = self.flat(indices).unique()
            changed = (weight[named] != before[named]).any(1)
            beside = weight.as_strided((height, 1), weight.stride(), gap)
            beside[named[changed]] *= 0.5


@planted("max-norm.padding-row")
class PaddingRowNotRenormed(Kernel):
    """The padding row is left out of the renorm."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        flat = self.flat(indices)
        kept = flat if options.padding_idx is None else flat[flat != options.padding_idx]
        super().renorm(kept, weight, options)


@planted("max-norm.padding-row")
class LastPaddingRowNotRenormed(Kernel):
    """A padding row at the end of the table is taken for a sentinel and left out of the renorm."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        flat = self.flat(indices)
        sentinel = options.padding_idx == weight.shape[0] - 1
        super().renorm(flat[flat != options.padding_idx] if sentinel else flat, weight, options)
