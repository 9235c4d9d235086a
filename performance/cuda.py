"""The clock of a CUDA device: events, an emptied L2, and the state of the chip.

tests/test_performance_cuda.py is what must pass on a device; docs/how-to/track-performance.md says
where it has, and every result carries the device that it was made on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Final

import torch

from embconform.performance.passes import Work
from embconform.performance.statistics import median
from embconform.performance.timers import Block

ESCAPED_NS: Final = 50_000
"""Waiting for the device for this much longer than for an idle one raises an alarm."""
REPEATS: Final = 5
"""Calls that must all show work beyond the events before an alarm counts."""
_IDLE_WAITS: Final = 21
GATE_NS: Final = 50_000
"""The gate stays shut for this much longer than one and a half times what launching took."""
MOST_GATE_NS: Final = 20_000_000
_CYCLES_A_NS: Final = 2
"""Of the multiprocessors' clock, at most; at a lower rate the gate stays shut for longer."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a call with nothing in front of it showed.

    Attributes
    ----------
    host_ns : int
        Until the host had launched everything.
    escapes : bool
        Whether there was work that the events on the current stream did not span.
    """

    host_ns: int
    escapes: bool


class CudaTimer:
    """Times each call between two events on the current stream.

    The device is kept busy while the host launches a call (a gate: a kernel that spins for a while,
    then the emptying of L2), so that the events take the time of the device and no gap in which it
    waited for the host. What a call makes the host wait for is in its time all the same.

    Work on other streams counts as well. A gate can't hold it back, so one call of each block has
    none: the host waits for the whole device before and after it, and where that wait shows work
    that the events did not span, all calls of the block are timed so, and the host's time is taken.

    A wait is also long where the host was held up, as that of a virtual machine is now and then.
    So a long wait only raises an alarm. The call is repeated without a gate, and counts as one that
    escapes if :data:`REPEATS` calls in a row show work beyond the events; else the device's time of
    the first stands. A target that escapes in some of its calls only can pass for an honest one.

    Parameters
    ----------
    cold : bool
        Whether L2 is overwritten before each call.

    Attributes
    ----------
    escaped : int
        Timed calls with work beyond the events. Calls that only probe don't count.
    cleared : int
        Alarms, of timed calls and of probes, that repetition did not confirm.
    late : int
        Timed calls whose gate opened before the host had launched everything.
    """

    def __init__(self, *, cold: bool = False) -> None:
        self.cold = cold
        size = 2 * torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._evict = torch.empty(size, dtype=torch.int8, device="cuda") if cold else None
        self.escaped = 0
        self.cleared = 0
        self.late = 0
        self._alarm = _idle_wait() + ESCAPED_NS

    def block(self, work: Work, inputs: Sequence[torch.Tensor], number: int, start: int) -> Block:
        """Time `number` calls, as :meth:`CpuTimer.block` does.

        Parameters
        ----------
        work : Work
        inputs : sequence of Tensor
        number : int
        start : int

        Returns
        -------
        Block
        """
        probe = self.probe(work, inputs[start % len(inputs)])
        total, output, turn = 0.0, None, start % len(inputs)
        for k in range(number):
            turn = (start + k) % len(inputs)
            output = None
            ns, output = self.call(work, inputs[turn], probe)
            total += ns
        return Block(total / number, number, turn, output)

    def probe(self, work: Work, indices: torch.Tensor) -> Probe:
        """Make an untimed call or more, to see how long launching takes and what escapes.

        Parameters
        ----------
        work : Work
        indices : Tensor

        Returns
        -------
        Probe
        """
        seen = self._waiting(work, indices)
        if seen.beyond <= self._alarm:
            return Probe(seen.host_ns, False)
        del seen
        again, escapes = self._repeated(work, indices)
        return Probe(again.host_ns, escapes)

    def call(self, work: Work, indices: torch.Tensor, probe: Probe) -> tuple[float, Any]:
        """Time one call.

        Parameters
        ----------
        work : Work
        indices : Tensor
        probe : Probe
            Of this work.

        Returns
        -------
        ns : float
        output : object
        """
        seen = self._waiting(work, indices) if probe.escapes else self._gated(work, indices, probe)
        if seen.beyond <= self._alarm:
            return seen.event_ns, seen.output
        if not probe.escapes:
            event_ns = seen.event_ns
            del seen  # its memory serves the repetition
            seen, escapes = self._repeated(work, indices)
            if not escapes:
                return event_ns, seen.output
        self.escaped += 1
        return seen.everywhere, seen.output

    def _repeated(self, work: Work, indices: torch.Tensor) -> tuple[_Seen, bool]:
        """Repeat a call alone until one leaves no work beyond its events; tell if none does."""
        seen = None
        for _ in range(REPEATS):
            seen = None
            seen = self._waiting(work, indices)
            if seen.beyond <= self._alarm:
                self.cleared += 1
                return seen, False
        assert seen is not None
        return seen, True

    def _get_ready(self, work: Work, indices: torch.Tensor) -> None:
        if work.before is not None:
            work.before(indices)

    def _empty(self) -> None:
        if self._evict is not None:
            self._evict.zero_()

    def _waiting(self, work: Work, indices: torch.Tensor) -> _Seen:
        """Make a call that has the whole device to itself."""
        self._get_ready(work, indices)
        self._empty()
        torch.cuda.synchronize()
        return _between_events(work, indices)[0]

    def _gated(self, work: Work, indices: torch.Tensor, probe: Probe) -> _Seen:
        """Make a call that is launched while the device is still busy."""
        self._get_ready(work, indices)
        cuda: Any = torch.cuda
        torch.cuda.synchronize()
        shut = min(probe.host_ns * 3 // 2 + GATE_NS, MOST_GATE_NS)
        cuda._sleep(shut * _CYCLES_A_NS)
        self._empty()
        seen, late = _between_events(work, indices)
        self.late += late
        return seen


@dataclass(frozen=True, slots=True)
class _Seen:
    """A call: the device's time, and the host's until launched, until the end, and after that."""

    event_ns: float
    host_ns: int
    everywhere: float
    beyond: float
    output: Any


def _between_events(work: Work, indices: torch.Tensor) -> tuple[_Seen, bool]:
    """Make a call between two events; tells too whether the device reached the first too soon."""
    event: Any = torch.cuda.Event
    begin, end = (event(enable_timing=True) for _ in range(2))
    host = perf_counter_ns()
    begin.record()
    output = work.run(indices)
    end.record()
    launched = perf_counter_ns() - host
    late = bool(begin.query())
    end.synchronize()
    on_stream = perf_counter_ns() - host
    if work.synchronize is not None:
        work.synchronize()
    torch.cuda.synchronize()
    everywhere = perf_counter_ns() - host
    event_ns = begin.elapsed_time(end) * 1e6
    return _Seen(event_ns, launched, everywhere, everywhere - on_stream, output), late


def _idle_wait() -> float:
    """Give the ns that waiting takes, after an event, for a device that has nothing left to do."""
    nothing = torch.empty(0)
    idle = Work(lambda _: None, None, nothing)
    return median([_between_events(idle, nothing)[0].beyond for _ in range(_IDLE_WAITS)]).value


@dataclass(frozen=True, slots=True)
class Chip:
    """What NVML tells of the device.

    Attributes
    ----------
    sm_mhz, memory_mhz, celsius : int
    throttled : str
        The reasons, joined by commas; empty for none.
    driver : str
    """

    sm_mhz: int
    memory_mhz: int
    celsius: int
    throttled: str
    driver: str


_REASONS: Final = {
    "power cap": "nvmlClocksThrottleReasonSwPowerCap",
    "hardware slowdown": "nvmlClocksThrottleReasonHwSlowdown",
    "software thermal slowdown": "nvmlClocksThrottleReasonSwThermalSlowdown",
    "hardware thermal slowdown": "nvmlClocksThrottleReasonHwThermalSlowdown",
    "power brake": "nvmlClocksThrottleReasonHwPowerBrakeSlowdown",
}


def read_chip() -> Chip | None:
    """Read clocks, temperature and throttling of the current device.

    Returns
    -------
    Chip or None
        None where nvidia-ml-py or the driver is missing.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return None
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    flags = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    reasons = [name for name, flag in _REASONS.items() if flags & getattr(pynvml, flag)]
    return Chip(
        pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
        pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        ", ".join(reasons),
        str(pynvml.nvmlSystemGetDriverVersion()),
    )
