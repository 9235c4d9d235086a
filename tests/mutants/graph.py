"""Wrong gradients that show only over several calls or passes, or in another grad mode."""

from __future__ import annotations

import os
from dataclasses import replace

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.percall import PerCall, rank_among_equals
from embconform.mutants.registry import planted


@planted("gradient.empty")
class PeeksAtTheFirst(Kernel):
    """The backward pass reads the first index to start its first run, also if there is none."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        assert self.flat(indices)[0] >= 0
        return super().gradient(upstream, indices, height, options)


@planted("gradient.empty")
class EmptyIsUninitialised(Kernel):
    """Without indices the kernel returns early, before the memory of the gradient is cleared."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        return right if flat.numel() else right.fill_(torch.nan)


@planted("gradient.empty")
class DividesByTheWidth(Kernel):
    """The number of indices is worked out as numel / width: a zero width is a division by zero."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        assert upstream.numel() // upstream.shape[-1] == indices.numel()
        return super().gradient(upstream, indices, height, options)


@planted("gradient.requires-grad")
class AlwaysTrainable(Kernel):
    """The output of a frozen table requires grad, so that everything behind it is kept alive."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        return out.requires_grad_() if torch.is_grad_enabled() else out


@planted("gradient.requires-grad")
class GraphUnderNoGrad(Kernel):
    """Turns grad mode on to be on the safe side: under no_grad a graph is recorded."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if torch.is_inference_mode_enabled():
            return super().forward(indices, weight, options)
        with torch.enable_grad():
            return super().forward(indices, weight, options)


@planted("gradient.frozen")
class InferenceInBfloat(PerCall):
    """A fast path for inference reads the table through bfloat16."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.fast = not torch.is_grad_enabled()

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return rows.to(torch.bfloat16).to(rows.dtype) if self.fast else rows


@planted("gradient.frozen")
class PacksForInference(PerCall):
    """inference_mode, but not no_grad, switches to rows packed in float16."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.packed = torch.is_inference_mode_enabled()

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return rows.half().to(rows.dtype) if self.packed else rows


@planted("padding.row-returned")
class InferenceForcesPadding(PerCall):
    """Without grad mode the padding row is looked up as zeros, as pytorch/pytorch#46585 did."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.trained = torch.is_grad_enabled()

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        if self.trained or options.padding_idx is None:
            return rows
        return rows.masked_fill((indices == options.padding_idx).unsqueeze(-1), 0.0)


@planted("gradient.accumulates")
class ReplacesTheGradient(PerCall):
    """A backward pass throws away the gradient that is there."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.table = weight

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if self.table.is_leaf:
            self.table.grad = None
        return super().gradient(upstream, indices, height, options)


@planted("gradient.accumulates")
class AccumulatesTwice(PerCall):
    """A fused kernel adds the gradient that is there, and then autograd adds it once more."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.table = weight

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        before = self.table.grad if self.table.is_leaf else None
        return right if before is None or before.is_sparse else right + before


@planted("gradient.accumulates")
class SharesItsGradient(Kernel):
    """One buffer a shape serves all gradients, so a later pass overwrites the one handed out."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        buffer = self.buffers.setdefault((right.shape, right.dtype), right)
        return buffer.copy_(right).detach()

    def __init__(self) -> None:
        self.buffers: dict[tuple[torch.Size, torch.dtype], Tensor] = {}


@planted("gradient.backward-twice")
class SortsWhatItSaved(PerCall):
    """The indices kept for the backward pass are sorted in place: the second pass mispairs them."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.kept = indices.reshape(-1).clone()

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        order = self.kept.argsort(stable=True)
        self.kept = self.kept[order]
        upstream = upstream.reshape(order.numel(), upstream.shape[-1])[order]
        return super().gradient(upstream, self.kept, height, options)


@planted("gradient.backward-twice")
class ForgetsThePadding(PerCall):
    """The padding mask is freed after the first pass; the second one counts padding."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.passes = 0

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        self.passes += 1
        return (
            super().without_padding(flat, upstream, options)
            if self.passes == 1
            else (flat, upstream)
        )


@planted("gradient.two-uses")
class SavesOnItself(Kernel):
    """The indices are saved on the layer and not in the graph: the last call's serve for all."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        self.saved = indices.clone()
        return super().lookup(indices, weight, options)

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        return super().gradient(upstream, self.saved, height, options)


@planted("gradient.two-uses")
class OnlyTheLastUse(PerCall):
    """Of a table that is looked up twice before the backward pass only the last use counts."""

    def __init__(self) -> None:
        self.calls = [0]

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.calls[0] += 1
        self.number = self.calls[0]

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        right = super().gradient(upstream, indices, height, options)
        return right if self.number == self.calls[0] else torch.zeros_like(right)


@planted("gradient.double-backward")
class SecondForgetsPadding(Kernel):
    """The derivative of the gradient does not know padding."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        return super().second(direction, indices, replace(options, padding_idx=None))


@planted("gradient.double-backward")
class SecondIsZero(Kernel):
    """No second derivative (pytorch/pytorch#6469), and instead of saying so it is given as 0."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        return torch.zeros_like(super().second(direction, indices, options))


@planted("gradient.double-backward")
class SecondOfTheFirst(Kernel):
    """The derivative of the gradient reaches only the first of equal indices."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        first = rank_among_equals(indices.reshape(-1).long()) == 0
        right = super().second(direction, indices, options)
        return right * first.reshape(*indices.shape, 1)


@planted("state.repeatable-gradient")
class Atomics(Kernel):
    """Atomic additions in whatever order the threads arrive (pytorch/pytorch#195404)."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        arrival = torch.Generator().manual_seed(int.from_bytes(os.urandom(6)))
        order = torch.randperm(flat.numel(), generator=arrival)
        return super().dense(upstream[order], flat[order], height, counts)


@planted("state.repeatable-gradient")
class RoundRobin(Kernel):
    """Many indices are dealt to threads in turn, and the turn goes on from call to call."""

    turn = 0

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() > 128:
            self.turn = (self.turn + 1) % 4
            order = torch.cat(
                [torch.arange((i + self.turn) % 4, flat.numel(), 4) for i in range(4)]
            )
            upstream, flat = upstream[order], flat[order]
        return super().dense(upstream, flat, height, counts)
