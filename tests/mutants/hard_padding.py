"""Padding that is forgotten, or overdone, where other conditions meet it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from embconform.mutants.hard_parts import LeaksPadding, Noted, is_sorted
from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.registry import planted


@planted("padding.gradient-is-zero")
class RankTwoSparsePaddingLast(LeaksPadding):
    """Sparse gradients of indices of two axes know no padding in the last row."""

    def at_fault(self, flat: Tensor) -> bool:
        last = self.options.padding_idx == self.table.shape[0] - 1
        return self.options.sparse and self.ids.dim() == 2 and last


@planted("padding.negative")
class NegativeInt32(Kernel):
    """A negative padding_idx is normalised for int64 indices only."""

    def __call__(  # noqa: PLR0917
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        options = (max_norm, norm_type, scale_grad_by_freq, sparse)
        if input.dtype == torch.int32 and padding_idx is not None and padding_idx < 0:
            self.padding(padding_idx, weight.shape[0])
            padding_idx = None
        return super().__call__(input, weight, padding_idx, *options)


@planted("padding.negative")
class NegativeWithFrequency(Kernel):
    """A negative padding_idx is normalised a second time, by V - 1, with scale_grad_by_freq."""

    def __call__(  # noqa: PLR0917
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        options = (max_norm, norm_type, scale_grad_by_freq, sparse)
        height = weight.shape[0]
        if padding_idx is not None and padding_idx < 0 and scale_grad_by_freq and height > 1:
            padding_idx = self.padding(padding_idx, height)
            padding_idx = padding_idx - 1 if padding_idx else 0
        return super().__call__(input, weight, padding_idx, *options)


@planted("padding.gradient-is-zero")
class HalfPaddingByFloat(LeaksPadding):
    """Half tables: padding is compared as a half, where ids beyond 2048 are not told apart."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None or upstream.dtype not in HALVES:
            return super().without_padding(flat, upstream, options)
        kept = flat.to(upstream.dtype) != float(options.padding_idx)
        return flat[kept], upstream[kept]

    def at_fault(self, flat: Tensor) -> bool:
        return False


@planted("padding.gradient-is-zero")
class ZeroDimensionalPadding(LeaksPadding):
    """A 0-d index takes the path for one row, which has no mask in float64."""

    def at_fault(self, flat: Tensor) -> bool:
        return not self.ids.dim() and self.table.dtype == torch.float64


@planted("padding.gradient-is-zero")
class PaddingOnlyAtTheEnds(LeaksPadding):
    """Padding is trimmed at the ends of each sequence; what stands between is summed."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        kept = flat != (-1 if options.padding_idx is None else options.padding_idx)
        if kept.any():
            places = kept.nonzero().flatten()
            inner = torch.zeros_like(kept)
            inner[places[0] : places[-1] + 1] = True
            kept = inner
        return flat[kept], upstream[kept]


@planted("padding.many-indices")
class SortedPaddingInTheMiddle(LeaksPadding):
    """Of sorted indices only the first run is compared with padding_idx, from 16 indices on."""

    def at_fault(self, flat: Tensor) -> bool:
        padding = self.options.padding_idx
        return flat.numel() >= 16 and is_sorted(flat) and int(flat[0]) != padding


@planted("padding.gradient-is-zero")
class StridedTablePadding(LeaksPadding):
    """The gradient of a column-sliced table has no mask, being copied from the base's kernel."""

    def at_fault(self, flat: Tensor) -> bool:
        height, width = self.table.shape
        return height > 1 and width > 0 and self.table.stride(0) > width and width % 2 == 0


@planted("padding.gradient-is-zero")
class PaddingWithBound(LeaksPadding):
    """With max_norm the fused kernel renorms and masks, but masks by the bound's row number."""

    def at_fault(self, flat: Tensor) -> bool:
        return self.options.max_norm is not None and self.options.norm_type != 2


@planted("padding.gradient-is-zero")
class PaddingAfterNoGradCall(Noted):
    """Padding is dropped for a table that was looked up under no_grad before."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        if not self.grad_mode and not weight.is_inference():
            weight.__dict__["_evaluated"] = True

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if self.table.__dict__.get("_evaluated"):
            options = replace(options, padding_idx=None)
        return super().gradient(upstream, indices, height, options)


@planted("padding.all-padding")
class AllPaddingOfManyAxes(Noted):
    """Nothing left of indices of three axes: the gradient is that of the first index."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if not flat.numel() and self.ids.dim() >= 3 and self.ids.numel():
            right[0] = 1
        return right


@planted("padding.all-padding")
class AllPaddingWithFrequency(Noted):
    """All padding and scale_grad_by_freq: 0 terms by 0 counts is NaN."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if counts is not None and not flat.numel() and self.ids.numel():
            right[self.options.padding_idx or 0] = torch.nan
        return right


@planted("padding.nonfinite-upstream")
class MultipliesMaskOfExpanded(Noted):
    """The mask multiplies where the upstream gradient is strided: Inf at padding gives NaN."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        right = super().gradient(upstream, indices, height, options)
        padding = options.padding_idx
        if padding is None or options.sparse or upstream.is_contiguous():
            return right
        flat = self.flat(indices)
        rows = upstream.reshape(flat.numel(), upstream.shape[-1])[flat == padding]
        right[padding] += (rows * 0).sum(0)
        return right


@planted("padding.nonfinite-upstream")
class MultipliesMaskOfSparse(Noted):
    """Sparse values at padding are multiplied by 0 and kept: Inf becomes an entry of NaN."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return super().sparse(upstream, flat, height, counts)

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None or not options.sparse:
            return super().without_padding(flat, upstream, options)
        return flat, upstream * (flat != options.padding_idx).unsqueeze(1)


@planted("padding.row-returned")
class ZeroUnderInferenceRankTwo(Noted):
    """Under no_grad padding of indices with two axes and more comes out as zeros."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        if not self.grad_mode and indices.dim() >= 2 and options.padding_idx is not None:
            rows[indices == options.padding_idx] = 0
        return rows


@planted("padding.row-returned")
class ZeroWhereSparse(Noted):
    """With sparse=True the padding row comes out as zeros (PT#46585, one path of two)."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        if options.sparse and options.padding_idx is not None and weight.is_floating_point():
            rows[indices == options.padding_idx] = 0
        return rows


@planted("padding.other-rows")
class MasksModuloV(Noted):
    """The mask compares modulo 256: rows that agree with padding_idx in their low byte lose."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None:
            return flat, upstream
        kept = flat % 256 != options.padding_idx % 256
        return flat[kept], upstream[kept]


@planted("padding.gradient-is-zero")
class GlobalPaddingOnShard(LeaksPadding):
    """The second of two vocabulary shards compares local ids with the global padding_idx."""

    def at_fault(self, flat: Tensor) -> bool:
        padding = self.options.padding_idx or 0
        return self.table.shape[0] >= 64 and padding >= self.table.shape[0] // 2


@planted("padding.row-untouched")
class ZeroesRowUnderNoGrad(Noted):
    """Under no_grad the stored padding row of a trainable table is reset before the lookup."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        served = not torch.is_grad_enabled() and not weight.is_inference()
        padded = options.padding_idx is not None and options.max_norm is None
        if served and padded and weight.requires_grad:
            weight.data[options.padding_idx] = 0
        return out
