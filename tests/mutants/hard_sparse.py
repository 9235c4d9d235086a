"""Sparse gradients and frequencies that go wrong where conditions meet."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.hard_parts import Noted, all_distinct, most_frequent
from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.percall import as_if_contiguous
from embconform.mutants.registry import planted


class Entries(Noted):
    """A right embedding whose sparse entries are changed where a condition holds."""

    def at_fault(self, flat: Tensor) -> bool:
        return False

    def changed(self, values: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
        return values[:-1], flat[:-1]

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() and self.at_fault(flat):
            upstream, flat = self.changed(upstream, flat)
        return super().sparse(upstream, flat, height, counts)


@planted("sparse.equals-dense")
class SparseOfThreeAxes(Entries):
    """Of three axes and more the entries of the last slice are not written."""

    def at_fault(self, flat: Tensor) -> bool:
        return self.ids.dim() >= 3


@planted("sparse.equals-dense")
class SparseInt32Wide(Entries):
    """int32 indices and rows of more than 32 columns: values are stored past the 32nd as 0."""

    def at_fault(self, flat: Tensor) -> bool:
        return self.ids.dtype == torch.int32 and self.table.shape[1] > 32

    def changed(self, values: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
        values = values.clone()
        values[:, 32:] = 0
        return values, flat


@planted("sparse.equals-dense")
class SparseHalfCoalesced(Entries):
    """Half entries are coalesced by the last value of equal indices."""

    def at_fault(self, flat: Tensor) -> bool:
        return self.table.dtype in HALVES and not all_distinct(flat)

    def changed(self, values: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
        later = (flat.unsqueeze(0) == flat.unsqueeze(1)).triu(1).any(1)
        return values[~later], flat[~later]


@planted("sparse.many-indices")
class SparseTailOf500(Entries):
    """Entries beyond 500 are appended in a second buffer, whose last one is cut off."""

    def at_fault(self, flat: Tensor) -> bool:
        return flat.numel() > 500 and flat.numel() % 4 != 0


@planted("sparse.padding-excluded")
class SparsePaddingLastOfRankTwo(Noted):
    """Indices of two axes and padding in the last row: the entry of the row before goes too."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        last = self.table.shape[0] - 1
        if options.sparse and self.ids.dim() == 2 and options.padding_idx == last > 0:
            kept = flat < last - 1
            return flat[kept], upstream[kept]
        return super().without_padding(flat, upstream, options)


@planted("sparse.layout")
class SparseCoalescedFlag(Noted):
    """Entries that happen to be sorted are marked as coalesced, repeats or not."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        made = super().sparse(upstream, flat, height, counts)
        if flat.numel() > 1 and bool((flat[1:] >= flat[:-1]).all()):
            made._coalesced_(True)
        return made


@planted("sparse.equals-dense")
class SparseValuesOfStrided(Noted):
    """A strided upstream gradient becomes the values of a sparse one in memory order."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if options.sparse and not upstream.is_contiguous():
            upstream = as_if_contiguous(upstream)
        return super().gradient(upstream, indices, height, options)


@planted("sparse.accumulates")
class SparseAddsToDense(Noted):
    """Where a sparse gradient is there and padding is set, the new entries lose their repeats."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        there = self.table.grad if self.table.is_leaf else None
        if there is not None and self.options.padding_idx is not None and flat.numel():
            upstream, flat = upstream[:-1], flat[:-1]
        return super().sparse(upstream, flat, height, counts)


@planted("sparse.equals-dense")
class SparseOfTransposedTable(Entries):
    """A transposed table: sparse values come with their columns reversed."""

    def at_fault(self, flat: Tensor) -> bool:
        return self.table.stride(0) == 1 and self.table.shape[1] > 1 and self.table.shape[0] > 1

    def changed(self, values: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
        return values.flip(1), flat


@planted("gradient.scale-by-freq-many")
class CountsInAShort(Kernel):
    """Counts are kept in 16 bits and wrap at 65,536."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        return (super().counts(flat, height) % 65536).clamp(min=1)


@planted("gradient.scale-by-freq-many")
class CountsInASignedByte(Noted):
    """Counts of calls with int32 indices are kept in a signed byte and saturate at 127."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        counts = super().counts(flat, height)
        return counts.clamp(max=127) if self.ids.dtype == torch.int32 else counts


@planted("gradient.float32-accumulation")
class CountsAsHalf(Noted):
    """The counts of a float16 table stop at 2048, where adding one to a half changes nothing."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        counts = super().counts(flat, height)
        return counts.clamp(max=2048) if self.table.dtype == torch.float16 else counts


@planted("gradient.scale-by-freq-nd")
class CountsOfTransposed(Noted):
    """Strided indices of two axes are counted along their first axis only."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        if self.ids.dim() == 2 and not self.ids.is_contiguous() and flat.numel():
            return super().counts(self.ids[0].long(), height)
        return super().counts(flat, height)


@planted("gradient.scale-by-freq-padding")
class FrequencyOfLastPadding(Noted):
    """With padding in the last row the row before is divided by one too many."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        counts = super().counts(flat, height)
        if self.options.padding_idx == height - 1 and height > 1:
            counts[height - 2] += 1
        return counts


@planted("gradient.scale-by-freq")
class FrequencyOfStridedTable(Noted):
    """A strided table's gradient is not divided."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        counts = super().counts(flat, height)
        return counts if self.table.is_contiguous() else torch.ones_like(counts)


@planted("gradient.scale-by-freq")
class FrequencyWithBound(Noted):
    """max_norm has the indices made unique, and then every count is 1."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        counts = super().counts(flat, height)
        return counts if self.options.max_norm is None else torch.ones_like(counts)


@planted("gradient.scale-by-freq")
class FrequencyOfTallTables(Noted):
    """From 256 rows on, counts come from a hash of the index: two rows share a count."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        if height < 256:
            return super().counts(flat, height)
        hashed = torch.bincount(flat % 251, minlength=251)
        return hashed[torch.arange(height) % 251].clamp(min=1)


@planted("gradient.double-backward-scaled")
class SecondCountsFirstAxis(Noted):
    """The second derivative of indices of two axes divides by counts of each row of indices."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        if options.scale_grad_by_freq and indices.dim() == 2 and len(indices) > 1:
            return torch.stack([super(Noted, self).second(direction, i, options) for i in indices])
        return super().second(direction, indices, options)


@planted("gradient.scale-by-freq-many")
class FrequencyOfHotHalf(Noted):
    """A half gradient of a row with more than 128 terms is divided before it is summed, in half."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if counts is None or upstream.dtype not in HALVES or most_frequent(flat) <= 128:
            return right
        parts = (upstream / counts[flat].unsqueeze(1)).to(upstream.dtype)
        parts = (parts * 16).trunc() / 16
        return super().dense(parts, flat, height, None)
