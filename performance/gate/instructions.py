"""Instructions of base's and head's calls: a second witness, which decides nothing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from embconform.performance.gate.benchmarks import Benchmark
from embconform.performance.gate.counting import OUT, save_inputs
from embconform.performance.gate.messages import Count, Counted, Hello, Side
from embconform.performance.gate.setup import Ready
from embconform.performance.gate.workers import SideError, Worker

MOST: Final = 2
"""Benchmarks that are counted: those that move the fewest bytes, where overhead is seen best."""
FLOOR: Final = 0.005
"""Least change that is told."""
TIMES: Final = 3.0
"""A change is told from this many times base's difference from itself on."""
_PATIENCE: Final = 600.0
_TOOLS: Final = ("valgrind", "callgrind_control")
_ENVIRONMENT: Final = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Dicts of strings differ from process to process otherwise; only the calling thread is counted."""
_NOTES: Final = {
    ("slower", "more"): "the time says so too: both agree",
    ("slower", "fewer"): "yet it is slower",
    ("slower", "same"): "yet it is slower: not by its instructions",
    ("faster", "more"): "yet it is faster",
    ("faster", "fewer"): "the time says so too: both agree",
    ("faster", "same"): "yet it is faster: not by its instructions",
    ("same", "more"): "the time is not longer by as much as matters",
    ("same", "fewer"): "the time is not shorter by as much as matters",
    ("same", "same"): "the time says so too: both agree",
    ("inconclusive", "more"): "the time is inconclusive, and instructions alone are no regression",
    ("inconclusive", "fewer"): "the time is inconclusive, and instructions alone are no proof",
    ("inconclusive", "same"): "the time is inconclusive, and instructions alone are no proof",
}


@dataclass(frozen=True, slots=True)
class Instructions:
    """Instructions of a benchmark's call.

    Attributes
    ----------
    name : str
        The benchmark's.
    base, again, head : float
        Base's, base's in another process, and head's.
    """

    name: str
    base: float
    again: float
    head: float

    @property
    def change(self) -> float:
        """How many more head takes: 0.1 for a tenth."""
        return 2 * self.head / (self.base + self.again) - 1

    @property
    def repeats_to(self) -> float:
        """How far base is from itself."""
        return abs(self.again / self.base - 1)

    @property
    def limit(self) -> float:
        """The change from which on it is told."""
        return max(FLOOR, TIMES * self.repeats_to)

    @property
    def says(self) -> str:
        """``more``, ``fewer`` or ``same``."""
        if abs(self.change) <= self.limit:
            return "same"
        return "more" if self.change > 0 else "fewer"

    def beside(self, time: str) -> str:
        """Say what this and the time come to.

        Parameters
        ----------
        time : str
            As :attr:`embconform.performance.gate.report.Row.verdict`.
        """
        counted = "as many" if self.says == "same" else self.says
        return f"{counted} instructions; {_NOTES[time, self.says]}"


@dataclass(frozen=True)
class Witness:
    """What was counted.

    Attributes
    ----------
    counts : tuple of Instructions
    left_out : tuple of str
        What could not be counted, and why.
    seconds : float
    """

    counts: tuple[Instructions, ...]
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0


def lacking() -> str:
    """Say in a line why nothing can be counted here; empty where it can."""
    if sys.platform != "linux":
        return "--instructions needs Valgrind, which runs torch on Linux alone"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return (
            f"--instructions needs Valgrind; not found: {' and '.join(missing)} "
            "(apt install valgrind, or as your system has it)"
        )
    from torch import _C

    return (
        "" if _C._valgrind_supported_platform() else "torch can't switch Valgrind on and off here"
    )


def smallest_calls(benchmarks: Sequence[Benchmark]) -> tuple[Benchmark, ...]:
    """Choose those that move the fewest bytes."""
    return tuple(sorted(benchmarks, key=lambda b: b.moved)[:MOST])


class Counter:
    """A worker under Valgrind.

    Parameters
    ----------
    benchmarks : sequence of Benchmark
    hello : Hello
    """

    def __init__(self, benchmarks: Sequence[Benchmark], hello: Hello) -> None:
        self._benchmarks = tuple(benchmarks)
        self._folder = TemporaryDirectory(prefix="embconform-")
        try:
            for workload in {b.workload for b in benchmarks}:
                save_inputs(workload, hello.seed, self._folder.name)
            under = (
                "valgrind", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no",
                f"--callgrind-out-file={self._folder.name}/{OUT}.%p",
            )  # fmt: skip
            alone = replace(hello, threads=1)
            self._worker = Worker(alone, _ENVIRONMENT, under=under, patience=_PATIENCE)
        except BaseException:
            self._folder.cleanup()
            raise

    def count(self, side: Side) -> Counted:
        """Count a side's calls, in a process that has no other side's modules.

        Raises
        ------
        SideError
            If it fails under Valgrind.
        """
        found = self._worker.ask(Count(side, self._benchmarks, self._folder.name), side.name)
        assert isinstance(found, Counted)
        return found

    def close(self) -> None:
        """End the worker, and take its files away."""
        self._worker.close()
        self._folder.cleanup()


def count_instructions(ready: Ready, tick: Callable[[str], None]) -> Witness | None:
    """Count base, head, and base again, under Valgrind.

    Parameters
    ----------
    ready : Ready
    tick : callable
        Told what comes next.

    Returns
    -------
    Witness or None
        What fails under Valgrind alone is left out; None where there is no benchmark.
    """
    began = perf_counter()
    chosen = smallest_calls(ready.benchmarks)
    if not chosen:
        return None
    if ready.compiles is not None:
        return Witness((), ("Valgrind is too slow for a target that compiles",))
    found: list[Counted] = []
    tick("starting Valgrind")
    with closing(Counter(chosen, ready.hello)) as counter:
        for turn, side in (("base", ready.base), ("head", ready.head), ("base again", ready.base)):
            tick(f"counting instructions: {turn}")
            try:
                found.append(counter.count(side))
            except SideError as error:
                return Witness((), (f"{side.name}: {error}",), perf_counter() - began)
    counts, left_out = paired([b.name for b in chosen], *found)
    return Witness(counts, left_out, perf_counter() - began)


def paired(
    names: Sequence[str], base: Counted, head: Counted, again: Counted
) -> tuple[tuple[Instructions, ...], tuple[str, ...]]:
    """Put together what belongs to a benchmark, and what is wrong with the others."""
    counts: list[Instructions] = []
    left_out: list[str] = []
    for name in names:
        sides = {"base": base, "head": head, "base again": again}
        failed = [
            f"{name}: {side}: {c.wrong[name]}" for side, c in sides.items() if name in c.wrong
        ]
        if not failed:
            each = [counted.calls[name] for counted in (base, again, head)]
            counts.append(Instructions(name, *each))
        left_out += failed[:1]
    return tuple(counts), tuple(left_out)
