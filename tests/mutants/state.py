"""Embeddings whose answer depends on the calls before."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


@planted("state.repeatable")
class EverySecondScaleInFloat32(Kernel):
    """Every second call takes the scale in float32: both answers are within the error bound."""

    calls = 0

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        scale = super().scale(norms, max_norm)
        return scale * (1 - 2**-24) if self.calls % 2 else scale

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.calls += 1
        super().renorm(indices, weight, options)


@planted("state.repeatable")
class StaleTailOnSecondCall(Kernel):
    """From the second call with the same indices on, the last row comes out of an old buffer."""

    seen: tuple[int, ...] = ()

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        ids = tuple(flat.tolist())
        if len(ids) > 1 and ids == self.seen:
            rows[-1] = rows[0]
        self.seen = ids
        return rows


@planted("state.repeatable")
class RaceOfEqualCalls(Kernel):
    """Of equal calls in a row the second loses a race: two rows of a large batch change places."""

    seen: tuple[int, ...] = ()
    times = 0

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        ids = tuple(flat.tolist())
        self.times = self.times + 1 if ids == self.seen else 1
        self.seen = ids
        if len(ids) >= 32 and self.times == 2:
            flat = torch.cat([flat[1:2], flat[:1], flat[2:]])
        return super().rows(flat, weight)


class Reorders(Kernel):
    """Sums the gradient in another order each time, where a condition holds."""

    calls = 0

    def reorders(self, flat: Tensor, width: int) -> bool:
        return flat.numel() > 0

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.reorders(flat, upstream.shape[1]):
            self.calls += 1
            generator = torch.Generator().manual_seed(self.calls)
            order = torch.randperm(flat.numel(), generator=generator)
            flat, upstream = flat[order], upstream[order]
        return super().dense(upstream, flat, height, counts)

    def accumulator(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


@planted("state.repeatable-gradient")
class AtomicsInAnyOrder(Reorders):
    """The gradient is summed by atomics, in whatever order they come."""


@planted("state.repeatable-gradient")
class AtomicsForNarrowRows(Reorders):
    """Many indices of narrow rows go to atomics in spite of the deterministic flag (PT#195404)."""

    def reorders(self, flat: Tensor, width: int) -> bool:
        return flat.numel() >= 256 and width <= 8


class Buffered(Kernel):
    """Writes outputs of one shape and dtype in turn into a ring of buffers."""

    buffers = 1

    def __init__(self) -> None:
        self.rings: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = {}

    def buffered(self, out: Tensor, weight: Tensor) -> bool:
        return out.numel() > 0

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        if not self.buffered(out, weight):
            return out
        ring = self.rings.setdefault((out.shape, out.dtype), [])
        if len(ring) < self.buffers:
            ring.append(torch.empty_like(out))
        ring.append(ring.pop(0))
        return ring[-1].copy_(out).detach()


@planted("state.outputs-intact")
class OneOutputBuffer(Buffered):
    """All outputs of one shape share a buffer."""


@planted("state.outputs-intact")
class TwoOutputBuffers(Buffered):
    """Double buffering: an output lives until the call after the next."""

    buffers = 2


@planted("state.outputs-intact")
class FrozenOutputBuffer(Buffered):
    """The inference path reuses its output buffer, the training path does not."""

    def buffered(self, out: Tensor, weight: Tensor) -> bool:
        return out.numel() > 0 and not weight.requires_grad


@planted("state.views-of-outputs")
class RingByReferenceCount(Kernel):
    """Outputs that nobody refers to are used again, though a view of theirs may be alive."""

    IDLE = 3
    """References to an output in the ring alone: the ring's, the loop's and the count's own."""

    def __init__(self) -> None:
        self.ring: list[Tensor] = []

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if out.requires_grad or out.is_inference() or type(out) is not Tensor:
            return out
        for buffer in self.ring:
            alike = buffer.shape == out.shape and buffer.dtype == out.dtype
            if alike and sys.getrefcount(buffer) == self.IDLE:
                return buffer.copy_(out)
        self.ring = [*self.ring[-3:], out]
        return out


@planted("state.outputs-intact")
class LateGather(Kernel):
    """A gather still in flight fills the outputs before it again, from the table as it is now."""

    def __init__(self) -> None:
        self.flying: list[tuple[Tensor, Tensor, Tensor]] = []

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        if weight.is_inference() or out.is_inference() or options.max_norm is not None:
            return out
        for table, flat, before in self.flying:
            if table.data_ptr() == weight.data_ptr() and table.shape == weight.shape:
                before.copy_(weight.index_select(0, flat).view_as(before))
        flight = (weight.detach(), self.flat(indices).clone(), out.detach())
        self.flying = [*self.flying[-3:], flight]
        return out
