"""What compiling costs: seconds of a first call, and graphs for calls of other sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from embconform.performance.gate.benchmarks import Benchmark
from embconform.performance.gate.decision import F64, p_values, upper_bound
from embconform.performance.gate.messages import Compile, Hello, Side
from embconform.performance.gate.workers import Crew
from embconform.performance.memory import Compiled

LOOKS: Final = (5, 10)
"""After how many pairs of fresh processes there is a decision."""
FLOOR: Final = 0.2
"""Least slowdown of compiling that matters."""
ALARM: Final = 0.01
MISS: Final = 0.05
_CACHES: Final = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Each process has its own, empty: what an earlier one has compiled would be found again."""


@dataclass(frozen=True)
class Compilations:
    """What compiling costs on both sides.

    Attributes
    ----------
    benchmark : str
    base, head : tuple of Compiled
        One a process, in the same order.
    wrong : str
        Empty where nothing is.
    undecided : str
        Why the seconds can't be compared; empty where they are.
    """

    benchmark: str
    base: tuple[Compiled, ...]
    head: tuple[Compiled, ...]
    wrong: str = ""
    undecided: str = ""

    @property
    def log_ratios(self) -> F64:
        """Of seconds of the first call, head over base."""
        return _log_ratios(self.base, self.head)

    @property
    def seconds(self) -> tuple[float, float]:
        """The medians of base and head."""
        return _medians(self.base, self.head)

    @property
    def graphs(self) -> tuple[int, int]:
        """The fewest graphs of base and head, over all sizes."""
        return min(c.graphs for c in self.base), min(c.graphs for c in self.head)


@dataclass
class Compiler:
    """Lets both sides compile in fresh processes."""

    base: Side
    head: Side
    hello: Hello
    benchmark: Benchmark
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    def once(self, side: Side) -> Compiled:
        """Compile in a fresh process, with nothing compiled before."""
        with TemporaryDirectory(prefix="embconform-") as folder:
            fresh = {name: f"{folder}/{name}" for name in _CACHES}
            with Crew([side], self.hello, together=True, environment=fresh) as crew:
                found = crew.ask(Compile(side.name, self.benchmark), side.name)
        assert isinstance(found, Compiled)
        return found

    def pair(self) -> tuple[Compiled, Compiled]:
        """Compile base and head, in an order drawn anew."""
        sides = [self.base, self.head]
        if self.rng.random() < 0.5:
            head, base = self.once(sides[1]), self.once(sides[0])
        else:
            base, head = self.once(sides[0]), self.once(sides[1])
        return base, head


def smallest(benchmarks: Sequence[Benchmark]) -> Benchmark | None:
    """Choose the lookup on the smallest table: what compiling costs does not depend on it."""
    lookups = [b for b in benchmarks if not b.chosen.gradient and not b.chosen.options]
    return min(lookups, key=lambda b: b.workload.bytes, default=None)


def compare_compiling(
    name: str,
    pair: Callable[[], tuple[Compiled, Compiled]],
    tick: Callable[[str], None],
    over: Callable[[], bool] = lambda: False,
) -> Compilations:
    """Compile until it is clear whether head's compiling is worse.

    Parameters
    ----------
    name : str
        The benchmark's.
    pair : callable
        Compiles base and head in fresh processes.
    tick : callable
        Told what comes next.
    over : callable
        Whether the time is over; asked between pairs, but not while a flag has to recur.

    Returns
    -------
    Compilations
    """
    pairs = _Pairs(pair, tick)
    slower, undecided = _decided(pairs, over)
    base, head = pairs.base, pairs.head
    wrong = _wrong(base, head, slower=slower)
    return Compilations(name, tuple(base), tuple(head), wrong, "" if wrong else undecided)


@dataclass
class _Pairs:
    """What has been measured so far."""

    pair: Callable[[], tuple[Compiled, Compiled]]
    tick: Callable[[str], None]
    base: list[Compiled] = field(default_factory=list)
    head: list[Compiled] = field(default_factory=list)

    @property
    def counted(self) -> bool:
        """Whether counts have settled it: they need no statistics."""
        return len(self.base) >= 2 and (_more_graphs(self.base, self.head) or not self.both)

    @property
    def both(self) -> bool:
        """Whether both sides compile."""
        return _both(self.base, self.head)

    def measure(self, count: int, over: Callable[[], bool] = lambda: False) -> bool:
        """Measure further pairs; tell whether all of them were needed, and there was time."""
        for _ in range(count):
            if len(self.base) >= 2 and over():
                return False
            self.tick(f"compiling, pair {len(self.base) + 1}")
            for side, made in zip((self.base, self.head), self.pair(), strict=True):
                side.append(made)
            if self.counted:
                return False
        return True

    def ratios(self, start: int = 0) -> F64:
        """Give the log ratios of seconds, from some pair on."""
        return _log_ratios(self.base[start:], self.head[start:])


def _decided(pairs: _Pairs, over: Callable[[], bool]) -> tuple[bool, str]:
    """Measure until it is clear whether head compiles slower; say why where it isn't."""
    for until in LOOKS:
        if not pairs.measure(until - len(pairs.base), over):
            return False, "" if pairs.counted else "the time was over before compiling was compared"
        if _is_slower(pairs.ratios(), ALARM / len(LOOKS)):
            if pairs.measure(until) and _is_slower(pairs.ratios(until), ALARM):
                return True, ""
            return False, "slower compiling did not recur in fresh processes"
        if _is_fine(pairs.ratios()):
            return False, ""
    return False, "compiling takes too variable a time"


def _both(base: Sequence[Compiled], head: Sequence[Compiled]) -> bool:
    """Tell whether both sides compile."""
    return all(made.graphs for made in (*base, *head))


def _more_graphs(base: Sequence[Compiled], head: Sequence[Compiled]) -> bool:
    """Tell whether head makes more graphs in every process than base in any.

    A head that is the first to compile may make one graph for a size and one for any size.
    """
    if _both(base, head):
        return min(made.graphs for made in head) > max(made.graphs for made in base)
    return min(made.recompilations for made in head) > max(made.recompilations for made in base)


def _medians(base: Sequence[Compiled], head: Sequence[Compiled]) -> tuple[float, float]:
    """Give the median seconds of the first call."""
    old, new = (float(np.median([c.first_call_seconds for c in of])) for of in (base, head))
    return old, new


def _log_ratios(base: Sequence[Compiled], head: Sequence[Compiled]) -> F64:
    seconds = [[made.first_call_seconds for made in of] for of in (head, base)]
    return np.asarray(np.log(seconds[0]) - np.log(seconds[1]))


def _is_slower(ratios: F64, alpha: float) -> bool:
    beyond = float(np.median(ratios)) > math.log1p(FLOOR)
    return beyond and bool(p_values(ratios) <= alpha)


def _is_fine(ratios: F64) -> bool:
    return bool(upper_bound(ratios, MISS / len(LOOKS)) < math.log1p(FLOOR))


def _wrong(base: Sequence[Compiled], head: Sequence[Compiled], *, slower: bool) -> str:
    if len(base) >= 2 and _more_graphs(base, head):
        made = max(head, key=lambda c: c.graphs)
        sizes = made.sizes + 1
        return (
            f"compiles {made.graphs} graphs for {sizes} sizes, base {max(c.graphs for c in base)}"
        )
    if slower:
        old, new = _medians(base, head)
        return f"takes {new:.1f} s for its first call, base {old:.1f} s"
    return ""
