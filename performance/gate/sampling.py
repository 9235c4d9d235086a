"""Restarts: fresh processes in which base, head and the controls take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from embconform.performance.gate.benchmarks import Benchmark
from embconform.performance.gate.course import CHANGE, PLANTED, SILENT
from embconform.performance.gate.decision import F64
from embconform.performance.gate.messages import Batch, Calibrate, Hello, Side, Weigh
from embconform.performance.gate.workers import Crew
from embconform.performance.memory import Memory

BATCH_SECONDS: Final = 0.01
PAIRS: Final = 8
"""Rounds of a restart; each gives a batch of every arm."""
GRAIN: Final = 10
"""Calls of a batch come in multiples of this, so that a tenth more is a whole number."""
SLICES: Final = 10
"""Turns that a batch is cut into, in an order drawn anew: a burst of other work meets all arms."""
PLANTED_SLOWDOWN: Final = 0.1
WEIGHED: Final = 2
"""Restarts in which memory is measured: a finding has to recur."""


@dataclass(frozen=True)
class Arm:
    """What takes turns: a side, and how much slower it is made by further calls."""

    name: str
    side: str
    slowdown: float = 0.0


ARMS: Final = (
    Arm("base", "base"),
    Arm("head", "head"),
    Arm("twin", "twin"),
    Arm("planted", "twin", PLANTED_SLOWDOWN),
)
COMPARED: Final = {CHANGE: ("head", "base"), SILENT: ("twin", "head"), PLANTED: ("planted", "head")}
"""Numerator and denominator of each log ratio."""


@dataclass
class Sampler:
    """Measures restart by restart.

    Attributes
    ----------
    benchmarks : sequence of Benchmark
    sides : sequence of Side
    hello : Hello
    together : bool
        Whether all sides are in one process.
    rng : numpy.random.Generator
    arms : sequence of Arm
    compared : dict of str to tuple of two str
        The names of the arms whose log ratio is taken.
    grain : int
    pairs : int
    batch_seconds : float
    memories : dict
        Under a benchmark's name and a side what each weighing gave.
    numbers : dict of str to int
        Calls a batch.
    seconds : dict of str to dict of str to list of float
        For each benchmark and arm the median time of a call in each restart.
    """

    benchmarks: Sequence[Benchmark]
    sides: Sequence[Side]
    hello: Hello
    together: bool
    rng: np.random.Generator
    arms: Sequence[Arm] = ARMS
    compared: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(COMPARED))
    grain: int = GRAIN
    pairs: int = PAIRS
    batch_seconds: float = BATCH_SECONDS
    weigh: bool = True
    restarts: int = 0
    memories: dict[tuple[str, str], list[Memory]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def restart(self, benchmarks: Sequence[int]) -> dict[str, F64]:
        """Measure some of the benchmarks in fresh processes, as :class:`course.Source` asks."""
        found: dict[str, dict[int, float]] = {name: {} for name in self.compared}
        with Crew(self.sides, self.hello, together=self.together) as crew:
            for k in self.rng.permutation(benchmarks):
                times = self._rounds(crew, self.benchmarks[k])
                for name, (over, under) in self.compared.items():
                    found[name][k] = float(np.median(np.log(times[over] / times[under])))
            if self.weigh and self.restarts < WEIGHED:
                for k in benchmarks:
                    self._weigh(crew, self.benchmarks[k])
        self.restarts += 1
        return {name: np.array([of[k] for k in benchmarks]) for name, of in found.items()}

    def _rounds(self, crew: Crew, benchmark: Benchmark) -> dict[str, F64]:
        """Let the arms take turns; give seconds a call, one a round."""
        number = self._number(crew, benchmark)
        rounds = [
            self._round(crew, benchmark, number, turn)
            for turn in range(self.pairs + 1)  # the first warms up
        ]
        kept = {arm.name: np.array([times[arm.name] for times in rounds[1:]]) for arm in self.arms}
        mine = self.seconds.setdefault(benchmark.name, {})
        for name, values in kept.items():
            mine.setdefault(name, []).append(float(np.median(values)))
        return kept

    def _round(self, crew: Crew, benchmark: Benchmark, number: int, turn: int) -> dict[str, float]:
        """Let each arm have a batch, in slices that take turns; give seconds a call."""
        total = {arm.name: 0.0 for arm in self.arms}
        for part in range(SLICES):
            for k in self.rng.permutation(len(self.arms)):
                arm = self.arms[k]
                more, left = divmod(round(number * arm.slowdown), SLICES)
                extra = more + (part < left)
                batch = Batch(arm.side, benchmark, number // SLICES, extra, turn + part)
                total[arm.name] += crew.ask(batch, arm.side) / SLICES
        return total

    def _number(self, crew: Crew, benchmark: Benchmark) -> int:
        """Find once how many calls make a batch, in whole grains."""
        if benchmark.name not in self.numbers:
            found = crew.ask(Calibrate("head", benchmark, self.batch_seconds), "head")
            self.numbers[benchmark.name] = -(-found // self.grain) * self.grain
        return self.numbers[benchmark.name]

    def _weigh(self, crew: Crew, benchmark: Benchmark) -> None:
        for side in ("base", "head"):
            memory = crew.ask(Weigh(side, benchmark), side)
            self.memories.setdefault((benchmark.name, side), []).append(memory)
