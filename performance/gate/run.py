"""A whole run: speed and memory of head against base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from embconform.performance.gate.compiling import Compilations, Compiler, compare_compiling
from embconform.performance.gate.costs import weigh
from embconform.performance.gate.course import Course
from embconform.performance.gate.decision import F64, RULE, Rule
from embconform.performance.gate.report import Row
from embconform.performance.gate.sampling import Sampler
from embconform.performance.gate.setup import Ready

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """What was measured."""

    rows: tuple[Row, ...]
    void: bool
    restarts: int
    compilations: Compilations | None = None


@dataclass
class _Told:
    """A sampler that says what it does."""

    sampler: Sampler
    tick: Tick

    def restart(self, benchmarks: Sequence[int]) -> dict[str, F64]:
        self.tick(f"restart {self.sampler.restarts + 1}, {len(benchmarks)} benchmarks")
        return self.sampler.restart(benchmarks)


def measure(ready: Ready, *, seconds: float, tick: Tick, rule: Rule = RULE) -> Measured:
    """Measure both sides until everything is decided.

    Parameters
    ----------
    ready : Ready
    seconds : float
        No restart begins after these, but those in which a flag has to recur. Where the target
        compiles, that is timed afterwards, for as long again at most.
    tick : callable
        Told what comes next.
    rule : Rule

    Returns
    -------
    Measured
    """
    if not ready.benchmarks:
        return Measured((), False, 0)
    ends = perf_counter() + seconds
    rng = np.random.default_rng(ready.hello.seed)
    sampler = Sampler(ready.benchmarks, ready.sides, ready.hello, ready.together, rng)
    source = _Told(sampler, tick)
    course = Course(source, len(ready.benchmarks), rule, lambda: perf_counter() > ends)
    tracks = course.run()
    rows = []
    for benchmark, track in zip(ready.benchmarks, tracks, strict=True):
        times = sampler.seconds[benchmark.name]
        base, head = (sampler.memories[benchmark.name, side] for side in ("base", "head"))
        middle = {arm: float(np.median(times[arm])) for arm in ("base", "head")}
        errors = ready.errors.get(benchmark.name)
        weight = weigh(base, head)
        rows.append(Row(benchmark.name, track, middle["base"], middle["head"], weight, errors))
    return Measured(tuple(rows), course.void, sampler.restarts, _compile(ready, seconds, rng, tick))


def _compile(
    ready: Ready, seconds: float, rng: np.random.Generator, tick: Tick
) -> Compilations | None:
    if ready.compiles is None:
        return None
    ends = perf_counter() + seconds
    compiler = Compiler(ready.base, ready.head, ready.hello, ready.compiles, rng)
    return compare_compiling(
        ready.compiles.name, compiler.pair, tick, lambda: perf_counter() > ends
    )
