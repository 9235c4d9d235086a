"""What a pass costs besides time: memory, allocations, compilations."""

from __future__ import annotations

import ctypes
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import psutil
import torch

from embconform.performance.passes import Work

CALLS: Final = 2
PEAKS: Final = 2
_INTERVAL: Final = 0.0005
_RESET_PEAK: Final = "5"
"""What resets VmHWM when written to /proc/self/clear_refs: proc_pid_clear_refs(5)."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a pass, a call.

    Attributes
    ----------
    peak_bytes : int
        How far the resident set, or on CUDA the allocated memory, rose above where it stood.
    allocated_bytes : float
        Bytes that torch allocated.
    allocations : float
        How often.
    kept_bytes : float
        Bytes that torch allocated and that were not freed when the call's result was.
    """

    peak_bytes: int
    allocated_bytes: float
    allocations: float
    kept_bytes: float


def measure_memory(work: Work, inputs: Sequence[torch.Tensor], device: str) -> Memory:
    """Run a pass a few times with an eye on its memory; never while it is timed.

    Parameters
    ----------
    work : Work
    inputs : sequence of Tensor
    device : str

    Returns
    -------
    Memory
    """
    peak = _peak_cuda(work, inputs) if device == "cuda" else _peak_rss(work, inputs)
    allocated, count, kept = _profiled(work, inputs, device)
    return Memory(peak, allocated / CALLS, count / CALLS, kept / CALLS)


def _call(work: Work, indices: torch.Tensor) -> None:
    """Make one call and let go of everything it left."""
    if work.before is not None:
        work.before(indices)
    work.run(indices)
    work.release()


def _peak_rss(work: Work, inputs: Sequence[torch.Tensor]) -> int:
    """Read how far the resident set rises in one call."""
    highest = 0
    for indices in inputs[:PEAKS]:
        if work.before is not None:
            work.before(indices)
        with resident_peak() as peak:
            result = work.run(indices)
        del result
        work.release()
        highest = max(highest, peak.rise)
    return highest


@dataclass
class Peak:
    """How far the resident set rose, in bytes; known once the context ends."""

    rise: int = 0
    samples: list[int] = field(default_factory=list)


@contextmanager
def resident_peak() -> Iterator[Peak]:
    """Watch this process's resident set.

    The kernel's own high-water mark is used where it can be reset (Linux), so that no peak is too
    short to be seen; elsewhere psutil is asked every half millisecond.

    Yields
    ------
    Peak
    """
    process, peak = psutil.Process(), Peak()
    _give_back()
    exact = _reset_high_water()
    before = process.memory_info().rss
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_INTERVAL):
            peak.samples.append(process.memory_info().rss)

    watcher = None if exact else threading.Thread(target=sample, daemon=True)
    if watcher:
        watcher.start()
    try:
        yield peak
    finally:
        done.set()
        if watcher:
            watcher.join()
        peak.samples.append(process.memory_info().rss)
        top = _high_water() if exact else max(peak.samples)
        peak.rise = max(0, top - before)


def _give_back() -> None:
    """Let the C library return what is free, or what calls reuse would not show in the rise."""
    with suppress(AttributeError, OSError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _reset_high_water() -> bool:
    """Set the kernel's mark to the present; False where that can't be done."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return _high_water() > 0


def _high_water() -> int:
    """Read the highest resident set so far, in bytes; 0 where it isn't told."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _peak_cuda(work: Work, inputs: Sequence[torch.Tensor]) -> int:
    """Read how far the allocated memory rises in one call."""
    if work.before is not None:
        work.before(inputs[0])
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = work.run(inputs[0])
    torch.cuda.synchronize()
    top = torch.cuda.max_memory_allocated()
    del result
    work.release()
    return top - before


def _profiled(
    work: Work, inputs: Sequence[torch.Tensor], device: str
) -> tuple[float, float, float]:
    """Let torch's profiler count: bytes allocated, allocations, and bytes not freed."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    wanted = f"DeviceType.{device.upper()}"
    allocated = count = kept = 0.0
    for k in range(CALLS):
        indices = inputs[k % len(inputs)]
        if work.before is not None:
            work.before(indices)
        seen: Any = profile(activities=activities, profile_memory=True)
        _start(seen)
        try:
            result = work.run(indices)
            del result
            work.release()
        finally:
            seen.stop()
        # the raw events: torch takes seconds to put thousands of them into a tree
        raw = seen.profiler.kineto_results.events()
        changes = [
            event.nbytes()
            for event in raw
            if event.name() == "[memory]" and str(event.device_type()) == wanted
        ]
        allocated += sum(change for change in changes if change > 0)
        count += sum(change > 0 for change in changes)
        kept += max(0.0, sum(changes))
    return allocated, count, kept


def _start(profiler: Any) -> None:
    """Start a profiler that is used once, without torch's warning about later cycles.

    torch 2.10 and 2.11 give it at every start (pytorch/pytorch#180348). Its remedy, acc_events,
    makes a tree of all events when the profiler stops.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning: Profiler clears events")
        profiler.start()


@dataclass(frozen=True, slots=True)
class Compiled:
    """What compiling cost.

    Attributes
    ----------
    first_call_seconds : float
        The first call, compilation included.
    graphs : int
        Graphs that torch.compile made for it.
    recompilations : int
        Further graphs that calls of other sizes cost; 0 where one graph serves them all.
    sizes : int
        How many other sizes were called.
    """

    first_call_seconds: float
    graphs: int
    recompilations: int = 0
    sizes: int = 0


def graphs_compiled() -> int:
    """Count the graphs that Dynamo has compiled in this process so far."""
    module = sys.modules.get("torch._dynamo.utils")
    return int(module.counters["stats"]["unique_graphs"]) if module else 0


def first_call(work: Work, indices: torch.Tensor) -> Compiled:
    """Make a target's first call, with a clock beside it.

    Parameters
    ----------
    work : Work
    indices : Tensor

    Returns
    -------
    Compiled
    """
    before, started = graphs_compiled(), perf_counter()
    _call(work, indices)
    return Compiled(perf_counter() - started, graphs_compiled() - before)


def recompilations(embed: Any, indices: torch.Tensor, sizes: Sequence[int]) -> tuple[int, int]:
    """Count the graphs that calls of several sizes cost, beyond two.

    A compiler may make one graph for the first size and one for any size.

    Parameters
    ----------
    embed : callable
        The lookup, bound to its table.
    indices : Tensor of int64, shape (n,)
    sizes : sequence of int
        Numbers of indices, each at least 2.

    Returns
    -------
    graphs, recompilations : int
    """
    before = graphs_compiled()
    with torch.no_grad():
        for size in sizes:
            embed(indices[:1].expand(size).contiguous() if size > len(indices) else indices[:size])
    made = graphs_compiled() - before
    return made, max(0, made - 2)
