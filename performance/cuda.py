"""The clock of a CUDA device: events, an emptied L2, and the state of the chip.

Nothing in this file has run on a device yet: there was none where it was written.
docs/how-to/track-performance.md says so too, tests/test_performance_cuda.py is what must pass on
one, and every result carries the device that it was made on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Final

import torch

from embconform.performance.passes import Work
from embconform.performance.timers import Block

ESCAPED_NS: Final = 50_000
"""Work beyond the events for this much longer is work on another stream, not a slow launch."""


class CudaTimer:
    """Times each call between two events on the current stream.

    Work on other streams counts as well: the host waits for the whole device before and after, and
    where that wait shows work that the events did not span, the host's time is taken.

    Parameters
    ----------
    cold : bool
        Whether L2 is overwritten before each call.
    """

    def __init__(self, *, cold: bool = False) -> None:
        self.cold = cold
        size = 2 * torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._evict = torch.empty(size, dtype=torch.int8, device="cuda") if cold else None
        self.escaped = 0

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
        total, output, turn = 0.0, None, start % len(inputs)
        for k in range(number):
            turn = (start + k) % len(inputs)
            output = None
            if work.before is not None:
                work.before(inputs[turn])
            if self._evict is not None:
                self._evict.zero_()
            ns, output = self._one(work, inputs[turn])
            total += ns
        return Block(total / number, number, turn, output)

    def _one(self, work: Work, indices: torch.Tensor) -> tuple[float, Any]:
        event: Any = torch.cuda.Event
        begin, end = (event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        host = perf_counter_ns()
        begin.record()
        output = work.run(indices)
        end.record()
        end.synchronize()
        on_stream = perf_counter_ns() - host
        if work.synchronize is not None:
            work.synchronize()
        torch.cuda.synchronize()
        everywhere = perf_counter_ns() - host
        if everywhere - on_stream > ESCAPED_NS:
            self.escaped += 1
            return float(everywhere), output
        return begin.elapsed_time(end) * 1e6, output


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
