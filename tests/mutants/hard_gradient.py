"""Gradients that go wrong where layouts, sizes, dtypes and modes meet."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.hard_parts import Loses, Noted, all_distinct, is_sorted, most_frequent
from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.percall import as_if_contiguous
from embconform.mutants.registry import planted


@planted("gradient.sum")
class SortedSkipsLastRun(Loses):
    """Sorted indices skip the sort, and with it the sentinel that flushes the last run."""

    def at_fault(self, flat: Tensor) -> bool:
        return flat.numel() >= 4 and is_sorted(flat)


@planted("gradient.sum")
class SortedIsDistinct(Loses):
    """Strictly falling ends are taken for distinct indices, which are copied and not added."""

    def at_fault(self, flat: Tensor) -> bool:
        falling = bool((flat[1:] <= flat[:-1]).all())
        return flat.numel() > 2 and falling

    def lost(self, flat: Tensor) -> Tensor:
        lost = torch.zeros_like(flat, dtype=torch.bool)
        lost[1:] = flat[1:] == flat[:-1]
        return lost


@planted("gradient.sum")
class LastIndexLastRow(Loses):
    """The last segment is closed by row V - 1, which a last index of V - 1 is mistaken for."""

    def at_fault(self, flat: Tensor) -> bool:
        return flat.numel() > 8 and int(flat[-1]) == self.table.shape[0] - 1


@planted("gradient.many-indices")
class DistinctScatterDrops(Loses):
    """More than 100 indices, all distinct, are scattered without atomics, the last warp short."""

    def at_fault(self, flat: Tensor) -> bool:
        return flat.numel() > 100 and all_distinct(flat)


@planted("gradient.sum")
class MoreIndicesThanRows(Loses):
    """From 8 times as many indices as rows on, a histogram path forgets the first index."""

    def at_fault(self, flat: Tensor) -> bool:
        return flat.numel() >= 8 * self.table.shape[0] and self.table.shape[1] % 2 == 1

    def lost(self, flat: Tensor) -> Tensor:
        lost = torch.zeros_like(flat, dtype=torch.bool)
        lost[:1] = True
        return lost


@planted("gradient.half-precision")
class Bfloat16OddWidth(Noted):
    """bfloat16 atomics work on pairs; of an odd width the last column is stored, not added."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        width = upstream.shape[1]
        if upstream.dtype == torch.bfloat16 and width % 2 and width > 1 and flat.numel():
            right[flat[-1], -1] = upstream[-1, -1]
        return right


@planted("gradient.hot-rows")
class CounterInAByte(Loses):
    """A row's terms are counted in a byte: from the 256th on a run starts over."""

    def at_fault(self, flat: Tensor) -> bool:
        return most_frequent(flat) > 255

    def lost(self, flat: Tensor) -> Tensor:
        name = torch.bincount(flat.long()).argmax()
        named = flat == name
        return named & (named.cumsum(0) <= 256)


@planted("gradient.hot-rows")
class CounterInAShort(Loses):
    """Partial sums beyond 65,535 terms of a row go to a segment that is not read."""

    def at_fault(self, flat: Tensor) -> bool:
        return most_frequent(flat) > 65535

    def lost(self, flat: Tensor) -> Tensor:
        name = torch.bincount(flat.long()).argmax()
        named = flat == name
        return named & (named.cumsum(0) > 65535)


@planted("gradient.many-indices")
class ThreadsOf500(Loses):
    """More than 500 indices are dealt to threads; a chunk that isn't full loses its last."""

    def at_fault(self, flat: Tensor) -> bool:
        return flat.numel() > 500 and flat.numel() % 8 not in (0, 1)


@planted("gradient.strided-upstream")
class ExpandedWithPadding(Noted):
    """An expanded upstream gradient is masked in its own memory: one padding zeroes all rows."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        flat = self.flat(indices)
        expanded = upstream.numel() and upstream.dim() == 2 and upstream.stride(0) == 0
        if expanded and options.padding_idx is not None and flat.numel() > 1:
            padded = bool((flat == options.padding_idx).any())
            upstream = torch.zeros_like(upstream) if padded else upstream
        return super().gradient(upstream, indices, height, options)


@planted("gradient.strided-upstream")
class TransposedUpstreamInHalf(Noted):
    """A half upstream gradient with strides is widened in memory order."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if upstream.dtype in HALVES and not upstream.is_contiguous():
            upstream = as_if_contiguous(upstream)
        return super().gradient(upstream, indices, height, options)


@planted("gradient.strided-upstream")
class UpstreamOfThreeAxes(Noted):
    """An upstream gradient of three axes and more that is not contiguous is read as if it were."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if upstream.dim() >= 4 and not upstream.is_contiguous():
            upstream = as_if_contiguous(upstream)
        return super().gradient(upstream, indices, height, options)


@planted("gradient.strided-weight")
class GradientInTheTablesOrder(Noted):
    """int32 indices: the gradient of a transposed table is written in the table's memory order."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if self.ids.dtype == torch.int32 and self.table.stride(0) == 1 and right.shape[1] > 1:
            right = right.t().reshape(right.shape)
        return right


@planted("gradient.accumulates")
class WritesFirstGradient(Noted):
    """A gradient that is there is overwritten, if it is a contiguous one of float64."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        there = self.table.grad if self.table.is_leaf else None
        if there is not None and right.dtype == torch.float64:
            return right - there
        return right


@planted("gradient.accumulates")
class AccumulatesPaddingOnce(Noted):
    """With a gradient there and padding set, the mask is applied to the sum of both."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        there = self.table.grad if self.table.is_leaf else None
        padding = self.options.padding_idx
        if there is not None and padding is not None and not there.is_sparse:
            right[padding] = -there[padding] + 1
        return right


@planted("gradient.backward-twice")
class SecondPassInt32(Noted):
    """int32 indices are widened in the first pass and freed: the second has the last one twice."""

    passes = 0

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        self.passes += 1
        if self.passes > 1 and indices.dtype == torch.int32 and indices.numel() > 1:
            indices = indices.reshape(-1)[[*range(1, indices.numel()), 0]].reshape(indices.shape)
        return super().gradient(upstream, indices, height, options)


@planted("gradient.backward-twice")
class SecondPassPadded(Noted):
    """Only with padding, the second pass over a retained graph starts from the filtered rows."""

    passes = 0

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        self.passes += 1
        flat, upstream = super().without_padding(flat, upstream, options)
        if self.passes > 1 and options.padding_idx is not None:
            return flat[:-1], upstream[:-1]
        return flat, upstream


@planted("gradient.two-uses")
class TwoUsesOfOtherShapes(Noted):
    """Uses of one table in one graph are merged if their indices agree in number."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        if weight.requires_grad and torch.is_grad_enabled() and indices.numel() > 2:
            key = (indices.numel(), indices.dtype)
            self.merged = weight.__dict__.get("_use") == key
            weight.__dict__["_use"] = key
        else:
            self.merged = False

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        right = super().gradient(upstream, indices, height, options)
        self.table.__dict__.pop("_use", None)
        return right * 0 if self.merged else right


@planted("gradient.wide-rows")
class WideAndMany(Noted):
    """Above 64 columns and 64 indices the second block of columns starts a row late."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if upstream.shape[1] > 64 and flat.numel() > 64:
            upstream = upstream.clone()
            upstream[0, 64:] = 0
        return super().dense(upstream, flat, height, counts)


@planted("gradient.wide-rows")
class WidthOfSixModEight(Noted):
    """Widths of 6 mod 8 are filled up to 8; with repeats the mask hits a column too many."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if upstream.shape[1] % 8 == 6 and flat.numel() > 1 and not all_distinct(flat):
            right[flat[0], -1] = upstream[0, -1]
        return right


@planted("gradient.zeros-elsewhere")
class EmptyLikeFrom256Rows(Noted):
    """From 256 rows on only rows up to the largest index are cleared."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if height >= 256 and flat.numel() and int(flat.amax()) + 1 < height:
            right[int(flat.amax()) + 1 :] = 1e-3
        return right


@planted("gradient.double-backward")
class SecondOfRankTwo(Noted):
    """The second derivative of indices of two axes is laid out as for their transpose."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        right = super().second(direction, indices, options)
        if indices.dim() == 2:
            return right.transpose(0, 1).reshape(right.shape)
        return right


@planted("gradient.double-backward")
class SecondForgetsLastPadding(Noted):
    """The second derivative compares with padding_idx % (V - 1): the last row's is row 0."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        height = direction.shape[0]
        if options.padding_idx == height - 1 and height > 1:
            options = Options(0, None, 2.0, options.scale_grad_by_freq)
        return super().second(direction, indices, options)


@planted("gradient.int32-indices")
class Int32TimesWidth(Loses):
    """int32 row offsets are multiplied by the width in 16 bits where n exceeds 64."""

    def at_fault(self, flat: Tensor) -> bool:
        return self.ids.dtype == torch.int32 and flat.numel() > 64

    def lost(self, flat: Tensor) -> Tensor:
        return flat.long() * self.table.shape[1] > 2**15


@planted("gradient.strided-indices")
class StridedIndicesWithPadding(Noted):
    """With padding, strided indices are compared in memory order and summed in theirs."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        ids = self.ids
        if options.padding_idx is None or ids.dim() != 2 or ids.is_contiguous():
            return super().without_padding(flat, upstream, options)
        kept = ids.t().reshape(-1) != options.padding_idx
        return flat[kept], upstream[kept]


@planted("gradient.frozen")
class FrozenThenTrained(Kernel):
    """A table first seen without grad is packed for inference, in float16 from 32 columns on."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        narrow = weight.dtype == torch.float32 and weight.shape[1] >= 32
        if narrow and not weight.requires_grad and indices.dtype == torch.int32:
            return torch.where(rows.isfinite(), rows.half().float(), rows)
        return rows


@planted("gradient.frozen")
class TrainableUnderNoGrad(Noted):
    """A table that requires grad, looked up under no_grad: rows are returned rounded to float32."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if not self.grad_mode and self.table.requires_grad and rows.dtype == torch.float64:
            return rows.float().double()
        return rows


@planted("gradient.deterministic")
class DeterministicTail(Noted):
    """Under the deterministic flag the sort is stable, and its last partial block left out."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if torch.are_deterministic_algorithms_enabled() and flat.numel() % 32 > 1:
            upstream, flat = upstream[:-1], flat[:-1]
        return super().dense(upstream, flat, height, counts)


@planted("gradient.float64")
class Float64ManyInFloat32(Noted):
    """float64 gradients of more than 256 indices are summed in float32 for speed."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if upstream.dtype == torch.float64 and flat.numel() > 256:
            return super().dense(upstream.float(), flat, height, counts).double()
        return super().dense(upstream, flat, height, counts)
