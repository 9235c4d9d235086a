"""Where a benchmark's level has changed over many commits: the drift that no single one shows.

A series is turned into normal scores of its ranks, so that what noise looks like doesn't matter,
and ruptures' PELT (Killick, Fearnhead and Eckley, Optimal detection of changepoints with a linear
computational cost, JASA 107 (2012)) finds the changes of level. Its penalty is what the best split
of a series in random order gains with the probability of a false alarm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Final

import numpy as np
from scipy import stats

from embconform.performance.gate.decision import F64

ALARM: Final = 0.01
"""Probability that a history in which nothing changes shows a change, over all its series."""
SHORTEST: Final = 3
"""Fewest commits between two changes: fewer are told from outliers by nothing."""
LEAST: Final = 0.01
"""A change of level by less is left out."""
WORSE: Final = 0.03
"""A last level that is worse than the best earlier one by more is a regression."""
_DRAWS: Final = 20_000
_REACHED: Final = 0.005
_AT_ONCE: Final = 1_000


@dataclass(frozen=True)
class Series:
    """A number over commits.

    Attributes
    ----------
    name : str
        Benchmark, parameters, machine and environment.
    commits : tuple of str
        From old to new.
    values : tuple of float
        One a commit, all finite.
    more_is_worse : bool
    """

    name: str
    commits: tuple[str, ...]
    values: tuple[float, ...]
    more_is_worse: bool = True


@dataclass(frozen=True)
class Change:
    """A change of level.

    Attributes
    ----------
    commit : str
        The first of the new level, as well as can be told.
    after : str
        The commit before.
    old, new : float
        Medians of the levels.
    """

    commit: str
    after: str
    old: float
    new: float

    @property
    def size(self) -> float:
        """The change as a fraction of the old level; infinite from 0."""
        return _over(self.new, self.old)


@dataclass(frozen=True)
class Found:
    """What a series shows.

    Attributes
    ----------
    series : Series
    changes : tuple of Change
    worse : float
        How much worse the last level is than the best earlier one, as a fraction; 0 where it isn't.
    short : bool
        Whether so few commits can't show any change.
    """

    series: Series
    changes: tuple[Change, ...] = ()
    worse: float = 0.0
    short: bool = False

    @property
    def regressed(self) -> bool:
        """Whether the last level is a regression."""
        return self.worse > WORSE


def examine(history: Sequence[Series], alarm: float = ALARM) -> list[Found]:
    """Find the changes of level in every series.

    Parameters
    ----------
    history : sequence of Series
    alarm : float
        Split evenly over the series (Bonferroni).

    Returns
    -------
    list of Found
        In the order of the series.
    """
    return [_examined(series, alarm / len(history)) for series in history]


def _examined(series: Series, alarm: float) -> Found:
    values = np.asarray(series.values)
    count = len(values)
    if count < 2 * SHORTEST or best_gain(_scores(np.arange(float(count)))) <= penalty(count, alarm):
        return Found(series, short=True)
    places = change_points(values, alarm)
    edges = [0, *places, count]
    levels = [float(np.median(values[a:b])) for a, b in pairwise(edges)]
    changes = [
        Change(series.commits[place], series.commits[place - 1], old, new)
        for place, (old, new) in zip(places, pairwise(levels), strict=True)
    ]
    changes = [change for change in changes if abs(change.size) >= LEAST]
    return Found(series, tuple(changes), _worse(levels, series) if changes else 0.0)


def change_points(values: F64, alarm: float) -> list[int]:
    """Find where the level of a series changes.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        n at least twice :data:`SHORTEST`.
    alarm : float
        Probability that a series without a change shows one.

    Returns
    -------
    list of int
        Indices of the first values of new levels.
    """
    import ruptures

    search = ruptures.KernelCPD(kernel="linear", min_size=SHORTEST)
    found = search.fit(_scores(values)[:, None]).predict(pen=penalty(len(values), alarm))
    return [int(place) for place in found[:-1]]


@cache
def penalty(count: int, alarm: float) -> float:
    """Find what the best split of a series in random order gains at most, but for `alarm`.

    Parameters
    ----------
    count : int
        Length of the series.
    alarm : float

    Returns
    -------
    float
        Simulated with a fixed seed; beyond what simulation reaches, its tail is taken to fall
        exponentially, which that of ranks does faster.
    """
    rng = np.random.default_rng(0)
    plain = np.tile(_scores(np.arange(float(count))), (_AT_ONCE, 1))
    turns = range(_DRAWS // _AT_ONCE)
    gains = np.concatenate([best_gain(rng.permuted(plain, axis=1)) for _ in turns])
    reached = max(alarm, _REACHED)
    limit = float(np.quantile(gains, 1 - reached, method="higher"))
    beyond = float((gains[gains >= limit] - limit).mean())
    return limit + beyond * math.log(reached / alarm)


def best_gain(scores: F64) -> F64:
    """Give how much the best split of series reduces their sums of squares.

    Parameters
    ----------
    scores : ndarray of float64, shape (..., n)
        Whose mean is 0.

    Returns
    -------
    ndarray of float64, shape (...)
    """
    count = scores.shape[-1]
    first = np.arange(SHORTEST, count - SHORTEST + 1)
    sums = np.cumsum(scores, axis=-1)[..., first - 1]
    return np.asarray((sums**2 * (1 / first + 1 / (count - first))).max(axis=-1))


def _scores(values: F64) -> F64:
    """Turn values into normal scores; equal ones take places at random, from a fixed seed."""
    shuffled = np.random.default_rng(0).permutation(len(values))
    ranks = np.empty(len(values))
    ranks[shuffled] = stats.rankdata(np.asarray(values)[shuffled], method="ordinal")
    return np.asarray(stats.norm.ppf((ranks - 0.5) / len(values)))


def _worse(levels: Sequence[float], series: Series) -> float:
    *earlier, last = levels
    best = min(earlier) if series.more_is_worse else max(earlier)
    by = _over(last, best) if series.more_is_worse else _over(best, last)
    return max(0.0, by)


def _over(new: float, old: float) -> float:
    if old:
        return new / old - 1
    return float("inf") if new > 0 else 0.0
