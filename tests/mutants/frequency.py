"""Wrong counts under scale_grad_by_freq."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.percall import PerCall
from embconform.mutants.registry import planted


@planted("gradient.scale-by-freq")
class ScaleIgnored(Kernel):
    """scale_grad_by_freq is accepted and ignored (pytorch/pytorch#185119)."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return super().dense(upstream, flat, height, None)


@planted("gradient.scale-by-freq")
class CountOfTheRowBefore(Kernel):
    """[1, 1, 3] halves the gradient of row 3 (pytorch/pytorch#190063: wrong count used)."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if counts is not None and flat.numel():
            counts = counts.clone()
            named = flat.unique()
            counts[named[1:]] = counts[named[:-1]]
        return super().dense(upstream, flat, height, counts)


@planted("gradient.scale-by-freq")
class RunningFrequency(Kernel):
    """Frequencies are counted over all calls on tables of a size, not over one mini-batch."""

    def __init__(self) -> None:
        self.seen: dict[int, Tensor] = {}

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if options.scale_grad_by_freq:
            new = torch.bincount(self.flat(indices).long(), minlength=height)
            self.seen[height] = self.seen.get(height, 0) + new
        return super().gradient(upstream, indices, height, options)

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        counts = None if counts is None else self.seen[height].clamp(min=1)
        return super().dense(upstream, flat, height, counts)


@planted("gradient.scale-by-freq")
class ScaleLostInStridedPath(Kernel):
    """The copy of the kernel for indices that are not contiguous was made without the scale."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if not indices.is_contiguous() and not options.sparse:
            options = replace(options, scale_grad_by_freq=False)
        return super().gradient(upstream, indices, height, options)


@planted("gradient.scale-by-freq-nd")
class CountsPerSample(Kernel):
    """In a batch of sequences each sequence counts for itself."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if not options.scale_grad_by_freq or options.sparse or indices.dim() < 2:
            return super().gradient(upstream, indices, height, options)
        width = upstream.shape[-1]
        right = upstream.new_zeros(height, width)
        rest = indices[0].numel() if indices.shape[0] else 0
        for part, ids in zip(upstream.reshape(-1, rest, width), indices, strict=True):
            right += super().gradient(part, ids, height, options)
        return right


@planted("gradient.scale-by-freq-nd")
class CountsDoNotBroadcast(Kernel):
    """Counts and 2-D indices meet in a shape error (pytorch/pytorch#95182)."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if options.scale_grad_by_freq and not options.sparse and indices.dim() > 1:
            counts = self.counts(self.flat(indices).long(), height)[indices.long()]
            upstream = upstream / counts
        return super().gradient(upstream, indices, height, options)


@planted("gradient.scale-by-freq-nd")
class CountsTheFirstSlice(Kernel):
    """From three dimensions on, only the first slice is counted."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        self.counted = indices[0] if indices.dim() > 2 and len(indices) else indices
        return super().gradient(upstream, indices, height, options)

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if counts is not None:
            counts = self.counts(self.flat(self.counted).long(), height)
        return super().dense(upstream, flat, height, counts)


@planted("gradient.scale-by-freq-padding")
class CountsShiftedByPadding(Kernel):
    """Padding leaves the list of rows but not the list of counts: the rows after it are off."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        flat = self.flat(indices).long()
        self.named, self.tally = flat.unique(return_counts=True)
        self.padding_idx = options.padding_idx
        return super().gradient(upstream, indices, height, options)

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if counts is not None and self.padding_idx is not None:
            rows = self.named[self.named != self.padding_idx]
            counts = counts.clone()
            counts[rows] = self.tally[: rows.numel()]
        return super().dense(upstream, flat, height, counts)


@planted("gradient.scale-by-freq-padding")
class ScaleForgetsPadding(Kernel):
    """The path with the scale has no padding mask: the padding row gets its mean."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.scale_grad_by_freq and not options.sparse:
            return flat, upstream
        return super().without_padding(flat, upstream, options)


@planted("gradient.scale-by-freq-padding")
class PaddingCountsForAll(Kernel):
    """The slots that padding left are counted for every row, as if masked indices matched all."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        padding = options.padding_idx
        self.masked = 0 if padding is None else int((indices == padding).sum())
        return super().gradient(upstream, indices, height, options)

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        counts = None if counts is None else counts + self.masked
        return super().dense(upstream, flat, height, counts)


@planted("gradient.scale-by-freq-many")
class CountsInAByte(Kernel):
    """Counts are kept in a byte and wrap at 256."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        counts = None if counts is None else (counts % 256).clamp(min=1)
        return super().dense(upstream, flat, height, counts)


@planted("gradient.scale-by-freq-many")
class CountsPerBlock(Kernel):
    """Each block of 1024 indices divides by its own counts."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if counts is None or flat.numel() <= 1024:
            return super().dense(upstream, flat, height, counts)
        total = torch.zeros(height, upstream.shape[1], dtype=upstream.dtype)
        for part, ids in zip(upstream.split(1024), flat.split(1024), strict=True):
            total += super().dense(part, ids, height, self.counts(ids, height))
        return total


@planted("gradient.scale-by-freq")
class ReciprocalInPlace(PerCall):
    """The counts are inverted in place at the first pass; the second one inverts them back."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.inverted = False

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if counts is not None and self.inverted:
            counts = 1.0 / counts
        self.inverted = not self.inverted
        return super().dense(upstream, flat, height, counts)


@planted("gradient.double-backward-scaled")
class SecondDropsTheCount(Kernel):
    """The derivative of the gradient forgets the division, as torch 2.13 does on the CPU."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        return super().second(direction, indices, replace(options, scale_grad_by_freq=False))


@planted("gradient.double-backward-scaled")
class SecondDividesTwice(Kernel):
    """The derivative of the gradient divides the divided table once more."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        right = super().second(direction, indices, options)
        if not options.scale_grad_by_freq:
            return right
        counts = self.counts(self.flat(indices).long(), direction.shape[0])[indices.long()]
        return right / counts.unsqueeze(-1).to(right.dtype)
