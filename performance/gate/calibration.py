"""What the gate can see on this machine: its false alarms, and the smallest slowdown it finds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np
from scipy import stats

from embconform.performance.gate.course import CHANGE, CONTROLS, Course
from embconform.performance.gate.decision import F64, RULE, Call, Rule
from embconform.performance.gate.sampling import ARMS, COMPARED, Arm, Sampler
from embconform.performance.gate.setup import Ready

LEVELS: Final = (0.05, 0.1, 0.15, 0.2)
FOUND: Final = 0.95
FEWEST: Final = 20
"""Planted slowdowns of a size below which no share of 95% is claimed."""
_GRAIN: Final = 20
"""Calls of a batch come in multiples of this, so that a twentieth more is a whole number."""
_SAME: Final = ("cpu", "cores", "system")
"""What tells whether two runs were on like machines."""


@dataclass(frozen=True)
class Calibration:
    """What trials have shown.

    Attributes
    ----------
    target, date : str
    trials : int
    alarms, void, undecided : int
        Trials of head against head that called it slower, that were void, and that ended
        inconclusive.
    planted : dict of str to int
        How often each slowdown was put before the gate: every benchmark, every trial.
    caught : dict of str to int
        How often it was called slower.
    seconds : float
        Of a trial of head against head, on average.
    environment : dict of str to str
    """

    target: str
    date: str
    trials: int
    alarms: int
    void: int
    undecided: int
    planted: dict[str, int]
    caught: dict[str, int]
    seconds: float
    environment: dict[str, str]

    @property
    def smallest(self) -> float:
        """The smallest slowdown from which on :data:`FOUND` of all were found.

        NaN if there is none, or too few were tried.
        """
        found = math.nan
        for level in sorted(self.planted, key=float, reverse=True):
            tried = self.planted[level]
            if tried < FEWEST or self.caught[level] < FOUND * tried:
                break
            found = float(level)
        return found

    def most(self, count: int) -> float:
        """Give the upper end of a rate's interval; see :func:`most`."""
        return most(count, self.trials)

    @property
    def said(self) -> str:
        """What later runs quote."""
        smallest = self.smallest
        tried = max(self.planted.values(), default=0)
        if tried < FEWEST:
            finds = f"{tried} planted slowdowns of a size are too few to say what it finds"
        elif math.isnan(smallest):
            finds = f"finds no slowdown up to +{max(LEVELS):.0%} in {FOUND:.0%} of all cases"
        else:
            which = next(level for level in self.planted if float(level) == smallest)
            finds = f"found +{smallest:.0%} in {self.caught[which]} of {tried} cases"
        return (
            f"calibrated here on {self.date} with {self.target}: {finds}; {self.alarms} false "
            f"alarms in {self.trials} runs (at most {self.most(self.alarms):.0%}, with 95% "
            "confidence)"
        )

    @property
    def lines(self) -> list[str]:
        """Everything, for a terminal."""
        rates = [
            f"+{float(level):.0%}: found {self.caught[level]} of {count}"
            for level, count in sorted(self.planted.items(), key=lambda item: float(item[0]))
        ]
        head = (
            f"head against head, {self.trials} runs: {self.alarms} false alarms, {self.void} void, "
            f"{self.undecided} inconclusive; {self.seconds:.0f} s each"
        )
        return [head, *rates, self.said]


@dataclass
class _Recorded:
    """Restarts that are measured when they are first asked for, and given again to others.

    A restart measures everything that is asked for at every slowdown, so that the gate can be
    tried on each of them as if it were the only one.
    """

    sampler: Sampler
    tick: Callable[[str], None]
    taken: dict[int, list[dict[str, float]]] = field(default_factory=dict)

    def at(self, benchmarks: Sequence[int], number: int) -> list[dict[str, float]]:
        """Give a restart's log ratios of some benchmarks."""
        missing = [k for k in benchmarks if len(self.taken.setdefault(k, [])) <= number]
        while missing:
            self.tick(f"restart {number + 1}, {len(missing)} benchmarks")
            found = self.sampler.restart(missing)
            for row, k in enumerate(missing):
                self.taken[k].append({name: float(of[row]) for name, of in found.items()})
            missing = [k for k in missing if len(self.taken[k]) <= number]
        return [self.taken[k][number] for k in benchmarks]


@dataclass
class _Replay:
    """A course's source: recorded restarts, one slowdown of some benchmarks."""

    recorded: _Recorded
    which: Sequence[int]
    slowed: Mapping[int, str] = field(default_factory=dict)
    number: int = 0

    def restart(self, benchmarks: Sequence[int]) -> dict[str, F64]:
        asked = [self.which[k] for k in benchmarks]
        rows = list(zip(asked, self.recorded.at(asked, self.number), strict=True))
        self.number += 1
        found = {name: np.array([row[name] for _, row in rows]) for name in CONTROLS}
        changes = [row[self.slowed.get(k, CHANGE)] for k, row in rows]
        return found | {CHANGE: np.array(changes)}


@dataclass(frozen=True)
class Against:
    """What a whole run of head against head said.

    Attributes
    ----------
    alarm, void, undecided : bool
        Whether it called head slower, was void, or ended inconclusive.
    restarts : int
    seconds : float
    """

    alarm: bool
    void: bool
    undecided: bool
    restarts: int
    seconds: float


@dataclass
class Trial:
    """Head against head, and against itself slowed down, from the same restarts.

    Attributes
    ----------
    recorded : _Recorded
        Which measures the slowdowns that are asked for.
    count : int
        How many benchmarks there are.
    rule : Rule
    """

    recorded: _Recorded
    count: int
    rule: Rule = RULE

    def against_itself(self) -> Against:
        """Make a whole run of head against head."""
        began = perf_counter()
        course = Course(_Replay(self.recorded, range(self.count)), self.count, self.rule)
        calls = [track.call for track in course.run()]
        slower = Call.SLOWER in calls
        return Against(
            alarm=not course.void and slower,
            void=course.void,
            undecided=not course.void and not slower and Call.OPEN in calls,
            restarts=course.restarts,
            seconds=perf_counter() - began,
        )

    def finds(self, level: float, benchmark: int) -> bool:
        """Tell whether a slowdown of one benchmark is found, looking at that one."""
        source = _Replay(self.recorded, [benchmark], {benchmark: _named(level)})
        return Course(source, 1, self.rule, family=self.count).run()[0].call is Call.SLOWER

    def run_with(self, level: float, benchmark: int) -> str:
        """Make a whole run with one benchmark slowed down; give what is said of that one."""
        source = _Replay(self.recorded, range(self.count), {benchmark: _named(level)})
        course = Course(source, self.count, self.rule)
        call = course.run()[benchmark].call
        return "void" if course.void else call.value


def trial(
    ready: Ready,
    number: int,
    tick: Callable[[str], None],
    *,
    levels: Sequence[float] = LEVELS,
    rule: Rule = RULE,
) -> Trial:
    """Begin a trial, whose number seeds it.

    Parameters
    ----------
    ready : Ready
        Whose base is head.
    number : int
    tick : callable
        Told what is measured.
    levels : sequence of float
        Slowdowns that are measured along.
    rule : Rule

    Returns
    -------
    Trial
    """
    slowed = [Arm(_named(level), "head", level) for level in levels]
    compared = COMPARED | {arm.name: (arm.name, "base") for arm in slowed}
    own = replace(ready.hello, seed=ready.hello.seed + number)
    sampler = Sampler(
        ready.benchmarks, ready.sides, own, ready.together, np.random.default_rng(own.seed),
        (*ARMS, *slowed), compared, _GRAIN, weigh=False,
    )  # fmt: skip
    return Trial(_Recorded(sampler, tick), len(ready.benchmarks), rule)


def calibrate(
    ready: Ready,
    trials: int,
    *,
    environment: dict[str, str],
    tick: Callable[[str], None],
    rule: Rule = RULE,
) -> Calibration:
    """Try the gate on head against head, and on head slowed down by known amounts.

    Parameters
    ----------
    ready : Ready
        Whose base is head.
    trials : int
        Whole runs.
    environment : dict of str to str
    tick : callable
        Told what comes next.
    rule : Rule

    Returns
    -------
    Calibration
    """
    done, count = list[Against](), len(ready.benchmarks)
    caught = dict.fromkeys(map(str, LEVELS), 0)
    began, started = datetime.now(UTC), perf_counter()
    for number in range(trials):
        label = f"trial {number + 1} of {trials}"
        one = trial(ready, number, lambda said, label=label: tick(f"{label}, {said}"), rule=rule)  # type: ignore[misc]
        done.append(one.against_itself())
        for level in LEVELS:
            caught[str(level)] += sum(one.finds(level, k) for k in range(count))
    return Calibration(
        target=ready.head.target,
        date=f"{began:%Y-%m-%d}",
        trials=trials,
        alarms=sum(each.alarm for each in done),
        void=sum(each.void for each in done),
        undecided=sum(each.undecided for each in done),
        planted=dict.fromkeys(map(str, LEVELS), trials * count),
        caught=caught,
        seconds=(perf_counter() - started) / max(1, trials),
        environment=environment,
    )


def most(count: int, trials: int) -> float:
    """Give the upper end of the one-sided 95% interval (Clopper-Pearson) of a rate."""
    return 1.0 if count == trials else float(stats.beta.ppf(0.95, count + 1, trials - count))


def _named(level: float) -> str:
    return f"slowed by {level:.0%}"


def save(calibration: Calibration, file: Path) -> None:
    """Write a calibration where later runs find it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(asdict(calibration), indent=2) + "\n", encoding="utf-8")
    part.replace(file)


def quote(file: Path, environment: dict[str, str]) -> str:
    """Say what a calibration found; empty where there is none of a machine like this one."""
    try:
        found = Calibration(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return ""
    same = all(found.environment.get(key) == environment.get(key) for key in _SAME)
    return found.said if same else ""
