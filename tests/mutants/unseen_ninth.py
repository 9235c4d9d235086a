"""Kinds of bugs of a ninth exam: pitches, histograms, running sums, products, raw pointers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.module import Layer
from embconform.mutants.registry import planted
from embconform.mutants.transforms_parts import Parts, wrong
from embconform.mutants.unseen_eighth_state import usual

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


@planted("transforms.autocast")
class ProductUnderAutocast(Kernel):
    """The gradient is a matrix product, which is cast where it is taken under autocast."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if torch.is_autocast_enabled("cpu") and upstream.dtype is torch.float32:
            upstream = upstream.to(torch.get_autocast_dtype("cpu")).float()
        return super().dense(upstream, flat, height, counts)


@wrong("transforms.trace")
class PaddingOfTheExample(Parts):
    """Without padding among the indices there is none to mask, says the branch that is traced."""

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        traced: Any = torch._C._get_tracing_state()
        padding = options.padding_idx
        if traced is not None and padding is not None and not bool(ids.eq(padding).any()):
            options = replace(options, padding_idx=None)
        return super().look_up(ids, weight, options)


class _Ticket(Kernel):
    """A call whose counts lie in a registry."""

    def __init__(self, registry: dict[Any, Tensor], key: Any) -> None:
        self.registry, self.key = registry, key

    def counts(self, flat: Tensor, height: int) -> Tensor:
        return self.registry[self.key]


class _Counted(Kernel):
    """Counts are kept by a handle of the kernel and the number of its call."""

    registry: ClassVar[dict[Any, Tensor]] = {}
    handles: ClassVar[Iterator[int]] = count()

    def __init__(self) -> None:
        self.handle, self.calls = next(self.handles), 0

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        self.check_range(indices, weight, options)
        if not options.scale_grad_by_freq or not weight.requires_grad or not usual(weight):
            return super().forward(indices, weight, options)
        self.calls += 1
        key = self.handle, self.calls % 64
        self.registry[key] = self.counts(self.flat(indices).long(), len(weight))
        return Kernel.forward(_Ticket(self.registry, key), indices, weight, options)


@planted("module.deepcopy")
class TicketsOfTheOriginal(Layer):
    """Counts wait for the backward pass under a handle, which a deepcopy has, too."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kernel = _Counted()


@planted("errors.other-table")
class CheckedAsOfVersionNone(Kernel):
    """Indices that were in range count as such as long as their version stays, if they have one."""

    def __init__(self) -> None:
        self.checked: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if not usual(weight) or not torch.is_inference_mode_enabled():
            super().check_range(indices, weight, options)
            return
        state = 0 if indices.is_inference() else indices._version, len(weight)
        if self.checked.get(indices) != state:
            super().check_range(indices, weight, options)
            self.checked[indices] = state

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat % max(len(weight), 1), weight)
