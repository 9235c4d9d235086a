"""Floors: how long a pass must take at least, since bytes have to move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import numpy as np
import torch

from embconform.performance.passes import Inputs, Pass, Work
from embconform.performance.timers import pinned

INDEX_BYTES: Final = 8
FOOTPRINTS: Final = (2**18, 2**21, 2**23, 2**26, 2**28)
"""Bytes of the copies that are timed, source and destination together."""
LARGE_FOOTPRINT: Final = 2**30
"""On CUDA also this: several times the L2."""
SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a pass can't do without.

    Attributes
    ----------
    read, written : int
    """

    read: int
    written: int

    @property
    def total(self) -> int:
        """Both."""
        return self.read + self.written


def traffic(chosen: Pass, inputs: Inputs) -> Traffic:
    """Count the bytes that a pass must move, however it is written.

    Parameters
    ----------
    chosen : Pass
    inputs : Inputs

    Returns
    -------
    Traffic
        Mean over the draws. Each distinct row is read once; caches may save no less.

    Notes
    -----
    With n indices of u distinct rows, d columns and V rows: a lookup reads n indices and u rows
    and writes n rows; max_norm also writes the rows that it scales, half of u here. A dense
    backward pass reads n indices and n upstream rows and writes V rows. A sparse one may hand the
    upstream gradient on as its values, and only reads the indices. A step is a lookup and a dense
    backward pass, and then reads the gradient and the table and writes the table.
    """
    workload = inputs.workload
    line = workload.item * workload.width
    distinct = float(np.mean([len(np.unique(ids)) for ids in inputs.ids]))
    n, table = workload.count, workload.rows * line
    looked = Traffic(INDEX_BYTES * n + int(distinct * line), n * line)
    back = Traffic(INDEX_BYTES * n + n * line, table)
    match chosen.name:
        case "forward":
            return looked
        case "max_norm":
            return Traffic(looked.read, looked.written + int(distinct * line / 2))
        case "sparse":
            return Traffic(INDEX_BYTES * n, 0)
        case "sgd":
            read = looked.read + back.read + 2 * table
            return Traffic(read, looked.written + back.written + table)
        case _:
            return back


class Bandwidth:
    """How fast this machine copies, by how much is copied; measured in the same run.

    The ceiling is the fastest copy of the whole run: between measurements it is looked for again,
    so that a neighbour who slows copies down for a second lowers no ceiling.

    Parameters
    ----------
    device : str
    threads : int
        As many as the targets get.
    seconds : float
        How long each footprint is copied at first.
    """

    def __init__(self, device: str, *, threads: int = 1, seconds: float = SECONDS) -> None:
        self._device, self._threads = device, threads
        self.footprints = (*FOOTPRINTS, LARGE_FOOTPRINT) if device == "cuda" else FOOTPRINTS
        self.best = dict.fromkeys(self.footprints, 0.0)
        for footprint in self.footprints:
            self.measure(footprint, seconds)

    def measure(self, footprint: int, seconds: float) -> None:
        """Time copies of the measured footprint next above one, and keep the fastest so far."""
        last = self.footprints[-1]
        size = min((known for known in self.footprints if known >= footprint), default=last)
        with pinned(self._threads):
            found = _copy_bandwidth(size, self._device, seconds)
        self.best[size] = max(found, self.best[size])

    def at(self, footprint: int) -> float:
        """Give the ceiling for a working set.

        Parameters
        ----------
        footprint : int
            Bytes.

        Returns
        -------
        float
            Bytes a second: the best of the copies at least as large, so that what a small copy
            spends on being called lowers no ceiling; the largest copy's for anything larger.
        """
        larger = [rate for size, rate in self.best.items() if size >= footprint]
        return max(larger, default=self.best[max(self.best)])

    def floor_seconds(self, moved: Traffic, *, cold: bool) -> float:
        """Say how long moving these bytes takes at least; cold data comes from memory."""
        footprint = max(self.best) if cold else moved.total
        return moved.total / self.at(footprint)


def _copy_bandwidth(footprint: int, device: str, seconds: float) -> float:
    """Time copies of half the footprint onto the other half; bytes read and written a second."""
    source = torch.ones(footprint // 2, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    clock = _clock(target, source, device)
    best, ended, copies = float("inf"), perf_counter() + seconds, 0
    while perf_counter() < ended or copies < 5:
        copies += 1
        best = min(best, clock())
    return footprint / best


def _clock(target: torch.Tensor, source: torch.Tensor, device: str) -> Callable[[], float]:
    """Give what copies once and tells the seconds."""
    if device == "cuda":
        from embconform.performance.cuda import CudaTimer

        timer, work = CudaTimer(), Work(target.copy_, None, target)
        probe = timer.probe(work, source)
        return lambda: timer.call(work, source, probe)[0] * 1e-9

    def on_the_host() -> float:
        start = perf_counter()
        target.copy_(source)
        return perf_counter() - start

    return on_the_host
