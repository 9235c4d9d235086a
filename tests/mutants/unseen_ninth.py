"""Kinds of bugs of a ninth exam: pitches, histograms, running sums, products, raw pointers."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted

LINE = 64
SHARED = 48 * 1024
SMALL = 32
BLOCK = 64


@planted("gradient.strided-upstream")
class OnePitch(Kernel):
    """Whole cache lines of an upstream gradient are read at one distance, that of the last axes."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        row = upstream.shape[-1] * upstream.element_size()
        falling = all(a > b for a, b in zip(upstream.stride(), upstream.stride()[1:], strict=False))
        if indices.dim() > 1 and row and not row % LINE and falling and upstream.stride(-1) == 1:
            flat = (indices.numel(), upstream.shape[-1])
            upstream = upstream.as_strided(flat, (upstream.stride(-2), 1))
        return super().gradient(upstream, indices, height, options)


@planted("gradient.scale-by-freq-many")
class BytesForTallTables(Kernel):
    """Counts that shared memory can't hold as integers are kept in bytes, which stay at 255."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        counts = super().counts(flat, height)
        return counts.clamp(max=255) if 4 * height > SHARED else counts


@planted("gradient.many-indices")
class DifferencesOfARunningSum(Kernel):
    """Rising indices make segments, and their sums are differences of one running sum."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        rising = flat.numel() > BLOCK and bool((flat.diff() >= 0).all())
        if not rising or counts is not None:
            return super().dense(upstream, flat, height, counts)
        running = upstream.double().cumsum(0)
        last = torch.cat(
            [(flat.diff() > 0).nonzero().reshape(-1), flat.new_tensor([len(flat) - 1])]
        )
        sums = running[last].diff(dim=0, prepend=torch.zeros_like(running[:1]))
        summed = torch.zeros(height, upstream.shape[1], dtype=torch.float64)
        return summed.index_copy_(0, flat[last], sums).to(upstream.dtype)


@planted("lookup.special-values")
class ProductForManyOfFew(Kernel):
    """Many rows of a small table are a product with ones and zeros."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if len(weight) > SMALL or flat.numel() < 1_000 or weight.dtype is not torch.float32:
            return super().rows(flat, weight)
        return torch.nn.functional.one_hot(flat.long(), len(weight)).float() @ weight.detach()


@planted("gradient.tied-table")
class BoundsManyByTheirAddress(Kernel):
    """Whole vectors of many rows are bounded by a pointer, which counts no version."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        fused = indices.numel() >= BLOCK and weight.shape[1] % 8 == 0
        super().renorm(indices, weight.data if fused else weight, options)
