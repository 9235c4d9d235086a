"""The clocks of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Final, Protocol

import torch

from embconform.performance.cuda_targets.rows import Row
from embconform.performance.passes import Work
from embconform.performance.timers import CpuTimer

LAUNCHES: Final = 200
"""Launches in a graph."""
FOLLOWING: Final = 20
"""Calls that follow each other where the host's clock is read."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A timed call.

    Attributes
    ----------
    seconds : float
    late : bool
        Whether the device had to wait for the host to launch.
    output : object
        What the last call returned.
    """

    seconds: float
    late: bool
    output: Any


class Clock(Protocol):
    """Times calls."""

    def ready(self, work: Work, indices: torch.Tensor) -> None:
        """Learn what a call needs; made once for each work."""

    def sample(self, work: Work, indices: torch.Tensor) -> Sample:
        """Time a call."""
        ...


class EventClock:
    """Events around a call that is launched while the device is busy, L2 emptied before it.

    Parameters
    ----------
    launches : int
        Launches that a call stands for; times are divided by it.
    """

    def __init__(self, launches: int = 1) -> None:
        from embconform.performance.cuda import CudaTimer, Probe

        self._timer, self._launches = CudaTimer(cold=True), launches
        self._probes: dict[int, Probe] = {}

    def ready(self, work: Work, indices: torch.Tensor) -> None:
        """Learn how long launching takes, and whether work escapes to other streams."""
        self._probes[id(work)] = self._timer.probe(work, indices)

    def sample(self, work: Work, indices: torch.Tensor) -> Sample:
        """Time one call."""
        late = self._timer.late
        ns, output = self._timer.call(work, indices, self._probes[id(work)])
        return Sample(ns * 1e-9 / self._launches, self._timer.late > late, output)


class HostClock:
    """The host's clock around calls that follow each other, the device waited for at the end."""

    def ready(self, work: Work, indices: torch.Tensor) -> None:
        """Nothing to learn."""

    def sample(self, work: Work, indices: torch.Tensor) -> Sample:
        """Time :data:`FOLLOWING` calls."""
        run = work.run
        torch.cuda.synchronize()
        start = perf_counter_ns()
        for _ in range(FOLLOWING - 1):
            run(indices)
        output = run(indices)
        torch.cuda.synchronize()
        return Sample((perf_counter_ns() - start) * 1e-9 / FOLLOWING, False, output)


class DryClock:
    """The CPU's timer, where the program is only tried out."""

    def __init__(self) -> None:
        self._timer = CpuTimer()

    def ready(self, work: Work, indices: torch.Tensor) -> None:
        """Nothing to learn."""

    def sample(self, work: Work, indices: torch.Tensor) -> Sample:
        """Time one call."""
        block = self._timer.block(work, [indices], 1, 0)
        return Sample(block.ns * 1e-9, False, block.output)


def clock_for(row: Row, device: str) -> Clock:
    """Choose the clock of a row."""
    if device != "cuda":
        return DryClock()
    if row.clock == "host":
        return HostClock()
    return EventClock(LAUNCHES if row.clock == "graph" else 1)
