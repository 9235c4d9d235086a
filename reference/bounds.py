"""Error bounds from rounding error analysis; no tolerance constant stands anywhere else."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

ELEMENTARY_ULP = 4.0
"""Error of pow assumed at most, in ulp: the CUDA C++ programming guide's figure for powf."""


def gamma(n: float, u: float) -> float:
    """Compute Higham's gamma_n = n u / (1 - n u).

    Parameters
    ----------
    n : float
        Number of roundings.
    u : float
        Unit roundoff.

    Returns
    -------
    float
        Infinity where n u >= 1.

    References
    ----------
    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.1.
    """
    return n * u / (1 - n * u) if n * u < 1 else float("inf")


LARGEST: Final = 200.0
"""The exponent of an error beyond any number, which may still be multiplied by one."""


def relative(roundings: ArrayLike, u: float) -> NDArray[np.float64]:
    """Bound the relative error of a product of factors (1 + d_i)^±1 with |d_i| <= u.

    Parameters
    ----------
    roundings : array_like
        Number of factors; need not be whole, since a p-th root divides it by p.
    u : float
        Unit roundoff.

    Returns
    -------
    ndarray of float64
        (1 - u)**-roundings - 1, but never more than 1e86: where it is that large, anything goes.

    References
    ----------
    Higham, 2nd ed., Lemma 3.1, before its simplification to gamma.
    """
    exponents = -np.asarray(roundings, np.float64) * np.log1p(-u)
    return np.asarray(np.expm1(np.minimum(exponents, LARGEST)))


def summation(
    counts: ArrayLike, magnitudes: NDArray[np.float64], u: float, roundings: ArrayLike = 0
) -> NDArray[np.float64]:
    """Bound the error of summing in floating point, in any order.

    Parameters
    ----------
    counts : array_like
        Number of terms n, broadcast against `magnitudes`.
    magnitudes : ndarray of float64
        Sum of the absolute values of the terms.
    u : float
        Unit roundoff of the accumulator.
    roundings : array_like
        Roundings that each term suffers besides the additions.

    Returns
    -------
    ndarray of float64
        ((1 - u)**-roundings (1 + (n - 1) u) - 1) times `magnitudes`; at most Higham's
        gamma(n - 1 + roundings), and finite also where n u >= 1.

    References
    ----------
    Higham, 2nd ed., §4.2; Jeannerod and Rump, Improved error bounds for inner products in
    floating-point arithmetic, SIAM J. Matrix Anal. Appl. 34 (2013): (n - 1) u for every n.
    """
    additions = np.maximum(np.asarray(counts, np.float64) - 1, 0) * u
    own = relative(roundings, u)
    return np.asarray((own + additions + own * additions) * magnitudes)  # 1 + u would round to 1


def norm_roundings(width: int, p: float) -> float:
    """Count the roundings in a p-norm, as the exponent of (1 - u).

    Every term |w_i|**p is positive, so the sum's relative error is that of its terms and of
    width - 1 additions; the root divides it by p. Covered besides the plain formula: components
    scaled by the largest one first (as LAPACK's nrm2 does), pow of :data:`ELEMENTARY_ULP`, and the
    norm rounded once more to the table's dtype.

    Parameters
    ----------
    width : int
        Number of components.
    p : float
        Positive, or infinity; or 0, which counts, and float32 counts to 2**24 exactly.

    Returns
    -------
    float
    """
    if np.isinf(p) or p == 0:
        return 1.0
    power = 1.0 if p in (1.0, 2.0) else 2 * ELEMENTARY_ULP
    root = 2.0 if p in (1.0, 2.0) else 2 * ELEMENTARY_ULP + 2
    return (max(width - 1, 0) + power + p) / p + root + 1


def exponent_roundings(power_sum: NDArray[np.float64], p: float) -> NDArray[np.float64]:
    """Count the roundings that stand for 1/p rounded in S**(1/p): |ln S| / p of them.

    Parameters
    ----------
    power_sum : ndarray of float64
        S, the sum of |w_i|**p, positive.
    p : float

    Returns
    -------
    ndarray of float64
    """
    if p in (0.0, 1.0, 2.0) or np.isinf(p):
        return np.zeros_like(power_sum)
    return np.asarray(np.abs(np.log(power_sum)) / p)


def is_exact_sum(terms: NDArray[Any], magnitudes: NDArray[np.float64], precision: int) -> Any:
    """Tell where every order of summation is free of rounding.

    That is so where all terms are whole numbers and their magnitudes add up to at most
    2**precision: each partial sum is then a representable whole number.

    Parameters
    ----------
    terms : ndarray
        All terms.
    magnitudes : ndarray of float64
        Sum of the absolute values, per sum.
    precision : int
        Significant bits of the accumulator.

    Returns
    -------
    ndarray of bool
        Of the shape of `magnitudes`.
    """
    whole = bool(np.all(terms == np.rint(terms)))
    return (magnitudes <= 2.0**precision) & whole
