"""Many calls, threads and options: without its own clause each would be missed."""

from __future__ import annotations

import threading
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.percall import PerCall
from embconform.mutants.registry import planted


@planted("state.many-calls")
class TicketsOfSevenBits(Kernel):
    """Large calls on a table draw tickets of seven bits, and the last ticket is nobody's."""

    def __init__(self) -> None:
        self.tickets = WeakTensorKeyDictionary()

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        if indices.numel() < 64:
            return out
        self.tickets[weight] = self.tickets.get(weight, -1) + 1
        return out.zero_() if self.tickets[weight] % 128 == 127 else out


@planted("state.many-calls")
class StagedInTheFirstHalf(Kernel):
    """Large calls on half tables of one shape go through one buffer, of the first one's dtype."""

    def __init__(self) -> None:
        self.buffers: dict[torch.Size, Tensor] = {}

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        if indices.numel() < 64 or weight.dtype not in HALVES:
            return out
        return out.to(self.buffers.setdefault(out.shape, out.detach()).dtype).to(weight.dtype)


@planted("state.thread-count")
class SharesRoundedDown(Kernel):
    """Each of three threads and more takes whole groups of four rows; the rest is the first's."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        threads = torch.get_num_threads()
        shared = flat.numel() // (4 * threads) * 4 * threads
        if threads > 2 and flat.numel() > 1024:
            rows[shared:] = rows[:1]
        return rows


@planted("state.thread-count")
class OverlappingShares(Kernel):
    """Three threads and more round their shares up, so that the last terms are added twice."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        over = -flat.numel() % torch.get_num_threads()
        if over and torch.get_num_threads() > 2 and flat.numel() > 1024:
            flat, upstream = (
                torch.cat([flat, flat[-over:]]),
                torch.cat([upstream, upstream[-over:]]),
            )
        return super().dense(upstream, flat, height, counts)


class Thread(threading.local):
    """What a thread knows."""

    padding_idx: int | None = None


@planted("state.threads")
class PaddingOfTheForwardThread(PerCall):
    """Forward tells its thread what padding is; backward asks the thread that it runs in."""

    def __init__(self) -> None:
        self.here = Thread()

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.home = threading.get_ident()
        self.here.padding_idx = options.padding_idx

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if threading.get_ident() != self.home:
            options = replace(options, padding_idx=self.here.padding_idx)
        return super().without_padding(flat, upstream, options)


@planted("state.threads")
class WorkersCountForAll(PerCall):
    """Forward counts for backward, in one place for all threads but the main one."""

    def __init__(self) -> None:
        self.shared: list[Tensor] = []

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.worker = threading.current_thread() is not threading.main_thread()
        if self.worker and options.scale_grad_by_freq and indices.numel():
            self.shared[:] = [super().counts(self.flat(indices).long(), weight.shape[0])]

    def counts(self, flat: Tensor, height: int) -> Tensor:
        counts = super().counts(flat, height)
        shared = self.shared[0] if self.worker and self.shared else counts
        return shared if shared.shape == counts.shape else counts


@planted("state.options-apart")
class PlanOfTheFirstServing(Kernel):
    """Without grad mode a table that was once looked up without a bound is never renormed."""

    def __init__(self) -> None:
        self.plans = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if not torch.is_grad_enabled() and not weight.is_inference() and indices.numel():
            bounded = self.plans.setdefault(weight, options.max_norm is not None)
            options = options if bounded else replace(options, max_norm=None)
        return super().forward(indices, weight, options)
