"""Medians and their confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import median_abs_deviation, quantile_test, theilslopes

CONFIDENCE: Final = 0.95
FEWEST: Final = 6
"""Samples below which the extremes do not make a 95% interval of the median: 2 * 0.5**5 > 5%."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median with its interval; NaN bounds where there are too few samples for one."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def median(samples: ArrayLike) -> Estimate:
    """Take the median, with a confidence interval from order statistics.

    Parameters
    ----------
    samples : array_like of float, shape (n,)
        At least one.

    Returns
    -------
    Estimate
        Without an interval where n < :data:`FEWEST`; no distribution is assumed.
    """
    values = np.asarray(samples, np.float64)
    middle = float(np.median(values))
    if len(values) < FEWEST:
        return Estimate(middle)
    found = quantile_test(values, q=middle, p=0.5).confidence_interval(CONFIDENCE)
    return Estimate(middle, float(found.low), float(found.high))


def spread(samples: ArrayLike) -> float:
    """Give the median absolute deviation over the median, scaled to a normal's sigma."""
    values = np.asarray(samples, np.float64)
    middle = float(np.median(values))
    return float(median_abs_deviation(values, scale="normal")) / middle if middle else 0.0


def exponent(sizes: ArrayLike, costs: ArrayLike, decades: float = 2.0) -> Estimate:
    """Fit how a cost grows with a size: k of cost ~ size**k.

    Parameters
    ----------
    sizes, costs : array_like of float, shape (n,)
        Positive.
    decades : float
        Only sizes within this of the largest count, where fixed costs no longer hide the growth.

    Returns
    -------
    Estimate
        The Theil-Sen slope on logarithmic axes; NaN where fewer than two sizes count.
    """
    x, y = np.log10(np.asarray(sizes, float)), np.log10(np.asarray(costs, float))
    last = x >= x.max() - decades - 1e-9
    if last.sum() < 2:
        return Estimate(math.nan)
    slope, _, low, high = theilslopes(y[last], x[last], alpha=CONFIDENCE)
    return Estimate(float(slope), float(low), float(high))
