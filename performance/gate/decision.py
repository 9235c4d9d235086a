"""How the gate tells a slower head from a noisy machine.

The unit of the statistics is the restart: processes differ in where their memory lies, so pairs of
one process are no independent draws. A restart gives one number a benchmark, the median of the log
ratios of its pairs, and Student's t test asks whether the mean of those numbers is above 0. From
ten restarts on, so does its form for trimmed means (Yuen, The two-sample trimmed t for unequal
population variances, Biometrika 61 (1974)), and they share the probability of a false alarm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

F64 = NDArray[np.float64]


class Call(StrEnum):
    """What is decided of a benchmark."""

    OPEN = "open"
    SLOWER = "slower"
    FINE = "fine"


@dataclass(frozen=True)
class Rule:
    """The numbers of the decision.

    Attributes
    ----------
    alarm : float
        Probability that a run over benchmarks none of which has changed calls any of them slower,
        before the flag has to recur: it is split evenly over the looks, and at each look Holm's
        procedure controls it over the benchmarks.
    miss : float
        Probability that a benchmark slower by the threshold is called fine, split over the looks.
    looks : tuple of int
        After how many restarts there is a decision.
    floor : float
        Least slowdown that matters; 0.03 is 3%.
    factor : float
        A slowdown that matters is at least this many deviations of head against head.
    confirm : int
        Least number of restarts in which a flag has to recur; as many as it took, otherwise. Of
        ten, a burst or two can be left out.
    recur : float
        Probability that a flag on a benchmark that has not changed recurs.
    """

    alarm: float = 0.01
    miss: float = 0.05
    looks: tuple[int, ...] = (5, 10, 15, 20)
    floor: float = 0.03
    factor: float = 3.0
    confirm: int = 10
    recur: float = 0.01


RULE: Final = Rule()
FEWEST_TRIMMED: Final = 10
_YUEN_IS_OFF: Final = 2.0
"""Of normal noise up to twice as many p-values are below 0.00025 as should be (simulated)."""


@dataclass(frozen=True)
class Mean:
    """A mean over restarts, as one of the two tests takes it.

    Student's is the best where noise is normal. Yuen's leaves the lowest and the highest fifth out,
    so that a few restarts in a burst of other work, off by a tenth, don't decide.

    Attributes
    ----------
    restarts : int
    out : int
        How many of the lowest and of the highest are left out; 0 is Student's.
    share : float
        Which part of a probability the test may use.
    """

    restarts: int
    out: int = 0
    share: float = 1.0

    @property
    def freedom(self) -> int:
        """Degrees of freedom."""
        return self.restarts - 2 * self.out - 1

    @property
    def widened(self) -> float:
        """The standard error over the winsorised deviation: Tukey and McLaughlin, Sankhya A 25."""
        return math.sqrt(self.restarts) / (self.restarts - 2 * self.out)

    def middle(self, ratios: F64) -> F64:
        """Give the trimmed mean, shape (...)."""
        kept = np.sort(ratios, axis=-1)[..., self.out : self.restarts - self.out]
        return np.asarray(kept.mean(axis=-1))

    def winsorised(self, ratios: F64) -> F64:
        """Put what is left out at the edge of what is left; in order of size, shape (..., n)."""
        ordered = np.sort(ratios, axis=-1)
        edges = ordered[..., self.out, None], ordered[..., self.restarts - self.out - 1, None]
        return np.clip(ordered, *edges)

    def error(self, ratios: F64) -> F64:
        """Give the standard error, shape (...)."""
        return np.asarray(self.winsorised(ratios).std(axis=-1, ddof=1)) * self.widened

    def p_values(self, ratios: F64) -> F64:
        """Test whether the mean is above 0; one-sided, shape (...)."""
        middle, error = self.middle(ratios), self.error(ratios)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(error > 0, middle / error, np.sign(middle) * np.inf)
        t = np.where((error == 0) & (middle == 0), 0.0, t)
        return np.asarray(np.minimum(1.0, special.stdtr(self.freedom, -t) / self.share))

    def reach(self, ratios: F64, miss: float) -> F64:
        """Give how far the bound lies above the middle, at 1 - `miss`, shape (...)."""
        return np.asarray(-special.stdtrit(self.freedom, miss * self.share) * self.error(ratios))


def means(restarts: int) -> tuple[Mean, ...]:
    """Give the tests: both where there are restarts to spare, which share a probability then.

    Student's has three quarters, Yuen's the rest; the last is the one to show.
    """
    if restarts < FEWEST_TRIMMED:
        return (Mean(restarts),)
    return Mean(restarts, share=0.75), Mean(restarts, restarts // 5, 0.25 / _YUEN_IS_OFF)


def p_values(ratios: F64) -> F64:
    """Test whether log ratios have a mean above 0.

    Parameters
    ----------
    ratios : ndarray of float64, shape (..., restarts)
        One number a restart; at least two.

    Returns
    -------
    ndarray of float64, shape (...)
        One-sided: the less of what the tests give.
    """
    return _least([mean.p_values(ratios) for mean in means(ratios.shape[-1])])


def upper_bound(ratios: F64, miss: float) -> F64:
    """Give the one-sided upper confidence bound of the mean log ratio, at 1 - `miss`."""
    tests = means(ratios.shape[-1])
    return _least([mean.middle(ratios) + mean.reach(ratios, miss) for mean in tests])


def reach(ratios: F64, miss: float) -> F64:
    """Give how far above the mean log ratio its bound lies, at 1 - `miss`."""
    return _least([mean.reach(ratios, miss) for mean in means(ratios.shape[-1])])


def _least(found: list[F64]) -> F64:
    return np.asarray(np.min(found, axis=0))


def holm(p: F64, alpha: float, family: int | None = None) -> NDArray[np.bool_]:
    """Reject hypotheses so that any false rejection has at most probability `alpha`.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6 (1979).

    Parameters
    ----------
    p : ndarray of float64, shape (n,)
    alpha : float
    family : int, optional
        How many hypotheses there are, those without a p-value here included; they are taken as
        not rejected. n by default.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    size = len(p) if family is None else family
    order = np.argsort(p)
    passed = p[order] <= alpha / (size - np.arange(len(p)))
    rejected = np.zeros(len(p), np.bool_)
    rejected[order] = np.logical_and.accumulate(passed)
    return rejected


def thresholds(silent: F64, rule: Rule) -> F64:
    """Give the log ratio above which a slowdown matters.

    Parameters
    ----------
    silent : ndarray of float64, shape (..., restarts)
        Log ratios of head against head. Their true mean is 0, so the root of their winsorised
        mean square is as good as their deviation, and how far a run's own mean strays follows
        as for a standard error.

    Returns
    -------
    ndarray of float64, shape (...)
    """
    mean = means(silent.shape[-1])[-1]
    strays = np.sqrt((mean.winsorised(silent) ** 2).mean(axis=-1)) * mean.widened
    return np.asarray(np.maximum(math.log1p(rule.floor), rule.factor * strays))


def flagged(ratios: F64, threshold: F64, alpha: float, family: int) -> NDArray[np.bool_]:
    """Tell which benchmarks are slower: significantly, and by more than the threshold.

    Parameters
    ----------
    ratios : ndarray of float64, shape (benchmarks, restarts)
    threshold : ndarray of float64, shape (benchmarks,)
    alpha : float
        For the whole family.
    family : int

    Returns
    -------
    ndarray of bool, shape (benchmarks,)
    """
    return holm(p_values(ratios), alpha, family) & (np.median(ratios, axis=-1) > threshold)


@dataclass(frozen=True)
class Look:
    """What a look at the data tells; arrays over benchmarks.

    Attributes
    ----------
    slower : ndarray of bool
        Head against base is flagged.
    fine : ndarray of bool
        The upper bound of head against base is below the threshold, and the planted slowdown is
        seen.
    alarmed : ndarray of bool
        Head against head is flagged: the run is void.
    seeing : ndarray of bool
        The planted slowdown is flagged.
    threshold : ndarray of float64
    """

    slower: NDArray[np.bool_]
    fine: NDArray[np.bool_]
    alarmed: NDArray[np.bool_]
    seeing: NDArray[np.bool_]
    threshold: F64


def look(change: F64, silent: F64, planted: F64, rule: Rule, family: int) -> Look:
    """Decide what can be decided.

    Parameters
    ----------
    change, silent, planted : ndarray of float64, shape (benchmarks, restarts)
        Log ratios of head against base, head against head, and slowed head against head.
    rule : Rule
    family : int
        How many benchmarks the run began with.

    Returns
    -------
    Look
    """
    alpha, miss = rule.alarm / len(rule.looks), rule.miss / len(rule.looks)
    threshold = thresholds(silent, rule)
    seeing = flagged(planted, threshold, alpha, family)
    slower = flagged(change, threshold, alpha, family)
    return Look(
        slower=slower,
        fine=(upper_bound(change, miss) < threshold) & seeing & ~slower,
        alarmed=flagged(silent, threshold, alpha, family),
        seeing=seeing,
        threshold=threshold,
    )


def recurs(change: F64, threshold: F64, rule: Rule) -> NDArray[np.bool_]:
    """Tell which flags recur.

    Parameters
    ----------
    change : ndarray of float64, shape (flagged benchmarks, restarts)
        From restarts that the flags were not raised by.
    threshold : ndarray of float64, shape (flagged benchmarks,)
    rule : Rule

    Returns
    -------
    ndarray of bool, shape (flagged benchmarks,)
    """
    return (p_values(change) <= rule.recur) & (np.median(change, axis=-1) > threshold)
