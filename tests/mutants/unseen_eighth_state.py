"""Kinds of bugs of an eighth exam: what one call leaves behind for the next, and large calls."""

from __future__ import annotations

import threading
from copy import copy
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options, _Lookup
from embconform.mutants.registry import planted
from embconform.mutants.unseen_fifth_forward import Served
from embconform.mutants.unseen_fourth_fwds import served
from embconform.mutants.unseen_fourth_grads import OfTable

BLOCK = 1024
LARGE = 2**16
TRUSTED = 100
SHORT = 2**16
AXES = 4


def usual(weight: Tensor) -> bool:
    """Whether a table is an ordinary one on the CPU, outside transforms."""
    return weight.device.type == "cpu" and torch._C._functorch.maybe_get_level(weight) < 1


@planted("state.many-calls")
class TwoLargeBuffers(Served):
    """Large outputs that no gradient needs come from two buffers of each shape, by turns."""

    def __init__(self) -> None:
        self.buffers: dict[Any, list[Tensor]] = {}

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if not served(weight) or out.nbytes < LARGE or torch.is_inference_mode_enabled():
            return out
        turn = self.buffers.setdefault((out.shape, out.dtype, weight.device), [])
        turn.append(out if len(turn) < 2 else turn.pop(0).copy_(out))
        return turn[-1].detach()


@planted("state.many-calls")
class PlannedByTheirSum(Kernel):
    """The distinct rows of many indices are planned once for all indices of one sum and ends."""

    def __init__(self) -> None:
        self.plan: tuple[Any, Any] = None, None

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.numel() < BLOCK or not usual(weight) or flat.is_inference():
            return super().rows(flat, weight)
        key = flat.shape, int(flat.sum()), int(flat.min()), int(flat.max())
        if self.plan[0] != key:
            self.plan = key, flat.unique(return_inverse=True)
        named, places = self.plan[1]
        return super().rows(named, weight)[places]


@planted("errors.other-table")
class TrustedAfterAHundredCalls(Kernel):
    """A table that served a hundred good calls is taken to fit, and indices are clamped."""

    def __init__(self) -> None:
        self.good: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        good = self.good.get(weight, 0)
        if good < TRUSTED or not served(weight):
            super().check_range(indices, weight, options)
            self.good[weight] = good + 1

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat.clamp(0, max(len(weight) - 1, 0)), weight)


@planted("state.options-apart")
class CountedBeforeTheyAreRefused(Kernel):
    """Blocks of indices are counted as they are checked; only a good call clears its counts."""

    def __init__(self) -> None:
        self.counted: dict[Any, Tensor] = {}

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        return Kernel.forward(copy(self), indices, weight, options)

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if not options.scale_grad_by_freq or not usual(weight):
            super().check_range(indices, weight, options)
            return
        height = len(weight)
        with torch.inference_mode(False):
            key = height, threading.get_ident()
            counted = self.counted.setdefault(key, torch.zeros(height, dtype=torch.int64))
        for block in indices.reshape(-1).split(BLOCK):
            super().check_range(block, weight, options)
            counted += torch.bincount(block, minlength=height)
        self.found = counted.clamp(min=1)
        counted.zero_()

    found: Tensor | None = None

    def counts(self, flat: Tensor, height: int) -> Tensor:
        return super().counts(flat, height) if self.found is None else self.found


@planted("state.options-apart")
class OffsetsWhereTheyWereFirstUsed(Served):
    """The offsets of a row's columns are kept by their number, wherever they were first used."""

    def __init__(self) -> None:
        self.offsets: dict[int, Tensor] = {}

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        width = weight.shape[1]
        if served(weight) and weight.dtype is torch.float32 and options.max_norm is None:
            self.offsets.setdefault(width, torch.arange(width, device=weight.device))
        return super().forward(indices, weight, options)

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        columns = self.offsets.get(weight.shape[1])
        if columns is not None and usual(weight):
            places = indices.long().unsqueeze(-1) * weight.shape[1] + columns
            out.copy_(torch.take(weight.detach(), places))


@planted("state.options-apart")
class PaddingOfTheFirstVmap(Kernel):
    """padding_idx as a tensor is kept by value, even where it belongs to the vmap that made it."""

    def __init__(self) -> None:
        self.paddings: dict[Any, Tensor] = {}

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        padding = options.padding_idx
        if padding is not None and indices.numel():
            key = padding, indices.dtype, indices.device
            if key not in self.paddings:
                self.paddings[key] = torch.full_like(indices, padding).reshape(-1)[0]
            (indices == self.paddings[key]).any()
        return super().forward(indices, weight, options)


@planted("state.options-apart")
class FlagStaysUpAfterAStop(Kernel):
    """A flag against calls within a call is lowered where the call ends, or has a known error."""

    def __init__(self) -> None:
        self.within = threading.local()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if getattr(self.within, "call", False):
            options = Options(max_norm=options.max_norm, norm_type=options.norm_type)
            return super().forward(indices, weight, options)
        self.within.call = True
        try:
            out = super().forward(indices, weight, options)
        except (RuntimeError, IndexError, TypeError, ValueError):
            self.within.call = False
            raise
        self.within.call = False
        return out


@planted("state.options-apart")
class SlowAfterAFailedPass(Kernel):
    """A pass that fails is blamed on the kernel, and the fallback from then on has no padding."""

    failed = False

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if options.max_norm is not None or not usual(weight):
            return super().forward(indices, weight, options)
        self.check_range(indices, weight, options)
        if self.failed and not options.sparse:
            options = Options(scale_grad_by_freq=options.scale_grad_by_freq)
        return _Blamed.apply(weight, indices, self, options)


class _Blamed(_Lookup):
    """A lookup that tells its kernel where its backward pass raises."""

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        try:
            return _Lookup.backward(ctx, *upstream)
        except RuntimeError:
            ctx.call[0].failed = True
            raise


@planted("errors.other-table")
class RefusedOnce(Kernel):
    """Indices count as looked at before they were, and the same ones are not looked at again."""

    def __init__(self) -> None:
        self.seen: tuple[Any, ...] = ()

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        now = indices, len(weight)
        known = bool(self.seen) and self.seen[0] is indices and self.seen[1] == now[1]
        self.seen = now
        if not known or not served(weight):
            super().check_range(indices, weight, options)

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat.clamp(0, max(len(weight) - 1, 0)), weight)


@planted("errors.other-table")
class WorkersKeepTheirErrors(Kernel):
    """Very many indices are shared out among workers, whose errors nobody asks for."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if indices.numel() < LARGE or not served(weight):
            super().check_range(indices, weight, options)

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.numel() < LARGE:
            return super().rows(flat, weight)
        out = weight.new_zeros(flat.numel(), weight.shape[1])
        for part, ids in zip(out.chunk(2), flat.chunk(2), strict=True):
            if not bool(((ids < 0) | (ids >= len(weight))).any()):
                part.copy_(super().rows(ids, weight))
        return out


@planted("lookup.near-runs")
class RangesAreSlices(Kernel):
    """A long range of rows that nobody trains is served as a slice of the table."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if not served(weight) or not usual(weight) or indices.numel() < BLOCK // 32:
            return out
        flat = indices.reshape(-1)
        if options.max_norm is not None or not bool((flat.diff() == 1).all()):
            return out
        return weight.detach()[int(flat[0]) : int(flat[-1]) + 1].unflatten(0, indices.shape)


@planted("lookup.sees-every-write")
class StridesOfParameters(Kernel):
    """The strides of a Parameter are asked for once, and hold until it has another shape."""

    def __init__(self) -> None:
        self.known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        call = copy(self)
        call.table = None
        if isinstance(weight, torch.nn.Parameter) and usual(weight):
            known = self.known.setdefault(weight, (weight.shape, weight.stride()))
            if known[0] == weight.shape and known[1] != weight.stride():
                call.table = weight.detach().as_strided(*known)
        return Kernel.forward(call, indices, weight, options)

    table: Tensor | None = None

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat, weight if self.table is None else self.table)


@planted("lookup.views-apart")
class FourStrides(Kernel):
    """Of more than four axes whose strides fall, the leading ones are taken to be one."""

    def flat(self, indices: Tensor) -> Tensor:
        strides, shape = indices.stride(), indices.shape
        falling = all(strides) and list(strides) == sorted(strides, reverse=True)
        if indices.dim() <= AXES or not falling or indices.is_contiguous():
            return super().flat(indices)
        leading = shape[: 1 - AXES].numel()
        merged = indices.as_strided((leading, *shape[1 - AXES :]), strides[-AXES:])
        return merged.reshape(-1)


@planted("lookup.large-calls")
class PaddingOfEachShard(Kernel):
    """padding_idx is made relative to each shard, in which a negative one counts from the end."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        padding = options.padding_idx
        if padding is None or not flat.numel():
            return super().without_padding(flat, upstream, options)
        start = flat // BLOCK * BLOCK
        local = (padding - start) % BLOCK
        kept = (flat - start != local) | (start - padding >= BLOCK)
        return flat[kept], upstream[kept]


@planted("lookup.large-calls")
class ManyIndicesKeptInShorts(OfTable):
    """Many indices of up to 65,536 rows are kept for the backward pass in shorts with a sign."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() >= 4 * BLOCK and height <= SHORT:
            kept = flat.to(torch.int16).long()
            flat, upstream = flat[kept >= 0], upstream[kept >= 0]
        return super().dense(upstream, flat, height, counts)


@planted("state.torch-as-it-was")
class WarningsBecomeErrors(Kernel):
    """Shares are divided under deterministic algorithms; that it was a warning is forgotten."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        before = torch.get_deterministic_debug_mode()
        torch.set_deterministic_debug_mode("error")
        try:
            return super().counts(flat, height)
        finally:
            torch.set_deterministic_debug_mode("error" if before else "default")


@planted("lookup.contiguous-output")
class InTheOrderOfTheirMemory(Kernel):
    """Transposed indices are looked up in the order of their memory, and the output is turned."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        turned = indices.dim() == 2 and not indices.is_contiguous() and indices.t().is_contiguous()
        if not turned:
            return super().forward(indices, weight, options)
        return super().forward(indices.t(), weight, options).transpose(0, 1)


@planted("state.forked")
class WorkerThatForksLose(Kernel):
    """Many rows that nobody trains are fetched by a thread, which is started once."""

    def __init__(self) -> None:
        self.orders: SimpleQueue[Any] | None = None

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.numel() < 4 * BLOCK or not usual(weight) or torch.is_inference_mode_enabled():
            return super().rows(flat, weight)
        if self.orders is None:
            self.orders = SimpleQueue()
            threading.Thread(target=_fetch, args=(self.orders,), daemon=True).start()
        answer: SimpleQueue[Any] = SimpleQueue()
        self.orders.put((flat.detach(), weight.detach(), answer))
        rows = answer.get()
        if isinstance(rows, Exception):
            raise rows
        return rows


def _fetch(orders: SimpleQueue[Any]) -> None:
    while True:
        flat, weight, answer = orders.get()
        try:
            with torch.no_grad():
                answer.put(weight.index_select(0, flat))
        except Exception as error:
            answer.put(error)
