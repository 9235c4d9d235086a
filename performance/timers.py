"""Clocks: blocks of calls on the CPU, and the state of the machine around them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any, Final, Protocol

import psutil
import torch

from embconform.performance.passes import Work
from embconform.performance.statistics import median, spread

BLOCK_NS: Final = 1_000_000
"""A block lasts at least this long where calls can follow each other: 20,000 clock readings."""
STABLE: Final = 0.05
"""Warm-up ends when the medians of two successive groups of blocks differ by less than this."""
GROUP: Final = 3
NOISY_SPREAD: Final = 0.1
_DEFAULT_CACHE: Final = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Block:
    """Timed calls.

    Attributes
    ----------
    ns : float
        Nanoseconds a call.
    number : int
        Calls.
    turn : int
        Which of the inputs the last call had.
    output : object
        What the last call returned.
    """

    ns: float
    number: int
    turn: int
    output: Any


class Timer(Protocol):
    """Times blocks of calls on a device."""

    cold: bool

    def block(self, work: Work, inputs: Sequence[torch.Tensor], number: int, start: int) -> Block:
        """Time `number` calls, going round the inputs from `start` on."""
        ...


class CpuTimer:
    """Reads :func:`time.perf_counter_ns` around blocks, or around each call.

    Calls that need nothing done between them are timed as one block, as :mod:`timeit` does. Where
    a gradient has to be cleared, a graph built or a cache emptied before each call, each is timed
    alone and the times are added up; a pair of clock readings then stands in the time of a call.

    Parameters
    ----------
    cold : bool
        Whether the caches are emptied before each call, by writing to twice the last-level cache.
    """

    def __init__(self, *, cold: bool = False) -> None:
        self.cold = cold
        size = 2 * last_level_cache()
        self._evict = torch.zeros(size // 8, dtype=torch.int64) if cold else None

    def block(self, work: Work, inputs: Sequence[torch.Tensor], number: int, start: int) -> Block:
        """Time `number` calls, going round the inputs from `start` on.

        Parameters
        ----------
        work : Work
        inputs : sequence of Tensor
        number : int
            At least 1.
        start : int

        Returns
        -------
        Block
        """
        turn = (start + number - 1) % len(inputs)
        order = list(islice(cycle(inputs), start % len(inputs), start % len(inputs) + number))
        if work.before is None and self._evict is None:
            ns, output = _together(work, order)
        else:
            ns, output = self._apart(work, order)
        return Block(ns / number, number, turn, output)

    def _apart(self, work: Work, order: list[torch.Tensor]) -> tuple[int, Any]:
        run, before, wait, evict = work.run, work.before, work.synchronize, self._evict
        total, output = 0, None
        for indices in order:
            output = None
            if before is not None:
                before(indices)
            if evict is not None:
                evict.add_(1)
            if wait is None:
                start = perf_counter_ns()
                output = run(indices)
                end = perf_counter_ns()
            else:
                wait()
                start = perf_counter_ns()
                output = run(indices)
                wait()
                end = perf_counter_ns()
            total += end - start
        return total, output


def _together(work: Work, order: list[torch.Tensor]) -> tuple[int, Any]:
    """Time calls as one block; each output but the last is dropped at once, as it is in use."""
    run, wait, last = work.run, work.synchronize, order.pop()
    start = perf_counter_ns()
    for indices in order:
        run(indices)
    output = run(last)
    if wait is not None:
        wait()
    return perf_counter_ns() - start, output


def last_level_cache() -> int:
    """Read the size of the last-level cache in bytes; 32 MiB where the system doesn't tell."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * 1024)
    return max(sizes, default=_DEFAULT_CACHE)


@dataclass(frozen=True, slots=True)
class Warm:
    """How a target was warmed up.

    Attributes
    ----------
    number : int
        Calls a block.
    seconds : float
    stable : bool
        Whether the times had settled when the clock was started in earnest.
    """

    number: int
    seconds: float
    stable: bool


def warm_up(timer: Timer, work: Work, inputs: Sequence[torch.Tensor], seconds: float) -> Warm:
    """Find how many calls make a block, and repeat blocks until their times have settled.

    Parameters
    ----------
    timer : Timer
    work : Work
    inputs : sequence of Tensor
    seconds : float
        Give up after these.

    Returns
    -------
    Warm
    """
    began = perf_counter()
    number = 1
    times: list[float] = []
    while True:
        block = timer.block(work, inputs, number, 0)
        if block.ns * number >= BLOCK_NS or perf_counter() - began > seconds:
            break
        grown = int(1.2 * BLOCK_NS / max(block.ns, 1.0)) + 1
        number = max(number + 1, min(grown, 10 * number))
    while True:
        times.append(timer.block(work, inputs, number, len(times)).ns)
        if len(times) >= 2 * GROUP:
            old = median(times[-2 * GROUP : -GROUP]).value
            new = median(times[-GROUP:]).value
            if abs(new - old) < STABLE * old:
                return Warm(number, perf_counter() - began, True)
        if perf_counter() - began > seconds and len(times) >= 2:
            return Warm(number, perf_counter() - began, False)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Give torch a number of threads, and keep Python's collector out of the timed region.

    Parameters
    ----------
    threads : int
    """
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()


@dataclass(frozen=True, slots=True)
class Noise:
    """What disturbed a measurement.

    Attributes
    ----------
    spread : float
        Scaled median absolute deviation of the samples, over their median.
    preempted : float
        Involuntary context switches a second.
    stolen : float
        Share of processor time that the hypervisor gave to others.
    load : float
        Runnable tasks a core, over the last minute; above 1 others wait for us or we for them.
    """

    spread: float
    preempted: float
    stolen: float
    load: float

    @property
    def said(self) -> str:
        """One line where the machine was too noisy to trust small differences; else empty."""
        causes = []
        if self.spread > NOISY_SPREAD:
            causes.append(f"samples spread by {self.spread:.0%}")
        if self.stolen > 0.02:
            causes.append(f"the hypervisor took {self.stolen:.0%}")
        if self.load > 1.25:
            causes.append(f"load {self.load:.1f} a core")
        return f"noisy: {', '.join(causes)}" if causes else ""


class NoiseMeter:
    """Watches the machine between its making and :meth:`read`."""

    def __init__(self) -> None:
        self._began = perf_counter()
        self._switches = psutil.Process().num_ctx_switches().involuntary
        self._times = psutil.cpu_times()

    def read(self, samples: Sequence[float]) -> Noise:
        """Sum up.

        Parameters
        ----------
        samples : sequence of float
            Times of like blocks.

        Returns
        -------
        Noise
        """
        seconds = max(perf_counter() - self._began, 1e-9)
        switches = psutil.Process().num_ctx_switches().involuntary - self._switches
        now = psutil.cpu_times()
        passed = sum(now) - sum(self._times)
        stolen = getattr(now, "steal", 0.0) - getattr(self._times, "steal", 0.0)
        cores = os.cpu_count() or 1
        return Noise(
            spread=spread(samples),
            preempted=switches / seconds,
            stolen=stolen / passed if passed > 0 else 0.0,
            load=psutil.getloadavg()[0] / cores,
        )
