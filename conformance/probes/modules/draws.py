"""Is a new table drawn from N(0, 1)? Tests whose rate of false alarms is bounded, not guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtr, chdtrc, ndtr

from embconform.conformance.finding import Finding
from embconform.conformance.probes.claims import Claim
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

Floats = NDArray[np.float64]

SHAPES: Final = ((4096, 64), (509, 37))
"""New tables that a run tests; one more, of the second shape, comes from reset_parameters."""
REDRAWN: Final = ((1, 1), (3, 5), (9, 7), (33, 31), (8, 16))
"""Shapes of small tables that are drawn :data:`DRAWS` times over, most with odd counts."""
DRAWS: Final = 4
TALL: Final = (70_001, 4)
WIDE: Final = (9, 9_001)
"""Shapes of tables that a block of drawn rows or columns might be repeated over."""
TABLES: Final = len(SHAPES) + 1
TESTS: Final = 13
"""Tests of one table: three of all values, and five of each axis."""
FALSE_ALARM: Final = 1e-7
"""Chance, at most, that a run finds a right initialisation wrong: a tenth of one in 10⁶ runs."""
LEVEL: Final = FALSE_ALARM / (TABLES * TESTS)
"""Significance level of one test, after Boole's inequality."""


def chances(table: Floats) -> dict[str, float]:
    """Bound the probability that N(0, 1) gives a table as odd as this one, test by test.

    Every number is an upper bound that holds for each sample size, none an asymptotic value, so
    that the chance of a false alarm at a level is at most that level. For independent standard
    normals:

    - of all n values, the largest distance d between the empirical and the normal distribution
      function: 2 exp(-2 n d^2), the Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant;
    - of the sum and the sum of squares of all n values: the two-sided tails of N(0, n) and of
      chi-squared with n degrees of freedom;
    - of the sums over a line of m values: sum / sqrt(m) is N(0, 1); the largest of k lines, k
      times the two-sided tail. Finds a line that is shifted;
    - of the sums of squares over a line: chi-squared with m degrees of freedom; the oddest of k
      lines, k times the two-sided tail. Finds a line that is constant, zero or too wide;
    - of the squares of the k normalised sums: together chi-squared with k degrees of freedom.
      Finds values that are correlated along the lines;
    - of the products x y of pairs of lines, neighbours and those half a table apart: the sum S
      of N products of independent normals has the moment generating function
      (1 - t^2)^(-N/2), and Chernoff's bound at its best t gives the tail. Finds lines that repeat,
      negated or with noise.

    Parameters
    ----------
    table : ndarray of float64, shape (V, D)
        Divided by the standard deviation that it should have.

    Returns
    -------
    dict of str to float
        :data:`TESTS` of them, by what is tested.

    References
    ----------
    Massart, The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality, Ann. Probab. 18
    (1990).
    """
    found = {
        "the distribution of all values": _distribution(table.reshape(-1)),
        "the sum of all values": float(2 * ndtr(-abs(table.sum()) / np.sqrt(table.size))),
        "the sum of all squares": _chi_squared(table.size, (table**2).sum()),
    }
    for lines, name in ((table, "row"), (table.T, "column")):
        count, length = lines.shape
        sums = lines.sum(axis=1) / np.sqrt(length)
        squares = (lines**2).sum(axis=1)
        found |= {
            f"the sum of each {name}": float(2 * count * ndtr(-np.abs(sums)).min()),
            f"the sum of squares of each {name}": count * _chi_squared(length, squares),
            f"the spread of the sums of the {name}s": _chi_squared(count, (sums**2).sum()),
            f"the products of neighbouring {name}s": _products(
                lines[: count // 2 * 2 : 2], lines[1 : count // 2 * 2 : 2]
            ),
            f"the products of {name}s half a table apart": _products(
                lines[: count // 2], lines[count // 2 : count // 2 * 2]
            ),
        }
    return found


def _distribution(values: Floats) -> float:
    theory = ndtr(np.sort(values))
    steps = np.arange(values.size + 1) / values.size
    distance = max(float((steps[1:] - theory).max()), float((theory - steps[:-1]).max()))
    return 2 * float(np.exp(-2 * values.size * distance**2))


def _chi_squared(freedom: int, value: Floats) -> float:
    """Two-sided tail of the oddest of some values."""
    return float(2 * np.minimum(chdtr(freedom, value), chdtrc(freedom, value)).min())


def _products(one: Floats, other: Floats) -> float:
    """Chernoff's bound on the two-sided tail of a sum of products of independent normals."""
    count, total = one.size, abs(float((one * other).sum()))
    if total == 0:
        return 1.0
    best = (np.sqrt(count**2 + 4 * total**2) - count) / (2 * total)
    return float(2 * np.exp(-best * total - count / 2 * np.log1p(-(best**2))))


def undrawn(table: Floats, deviation: float, what: str) -> Finding | None:
    """Judge a table that should hold independent draws from N(0, deviation²).

    Besides the tests of :func:`chances`, nine tenths of the values must be distinct and no row
    may be another one or its negative: of right draws in float32, one value in a hundred has an
    equal at most, and that two rows of 37 values agree has a chance below 2**-500.

    Parameters
    ----------
    table : ndarray of float64, shape (V, D)
    deviation : float
    what : str
        For the message.

    Returns
    -------
    Finding or None
    """
    shape = f"{what} of {table.shape[0]} x {table.shape[1]}"
    if not np.isfinite(table).all():
        return Finding(f"{shape} holds values that are not finite")
    distinct = len(np.unique(table)) / table.size
    if distinct < 0.9:
        return Finding(f"only {distinct:.0%} of the values of {shape} are distinct")
    different = len({row.tobytes() for row in np.abs(table)})
    if different < len(table):
        repeated = len(table) - different
        return Finding(f"{repeated} rows of {shape} repeat others, as they are or negated")
    test, chance = min(chances(table / deviation).items(), key=lambda entry: entry[1])
    if chance >= LEVEL:
        return None
    return Finding(
        f"{shape} has mean {table.mean():.4g} and standard deviation {table.std():.4g}; it is "
        f"not drawn independently from N(0, {deviation:.4g}²): by {test}, p < {chance:.2g}",
        f"standard deviation {table.std():.6g}",
        f"standard deviation {deviation:.6g}",
        f"p >= {LEVEL:.2g}",
    )


@dataclass(frozen=True, eq=False)
class Drawn(Claim):
    """A table that must be a draw as the profile says.

    Attributes
    ----------
    what : str
        Names the table.
    table : ndarray
    shape : tuple of int
        As the constructor was told.
    profile : Profile
    padding : int or None
        A row that does not count.
    """

    what: str
    table: Array
    shape: tuple[int, int]
    profile: Profile
    padding: int | None = None

    def judge(self) -> Finding | None:
        """Test at :data:`LEVEL`."""
        if sorted(self.table.shape) != sorted(self.shape):  # which way round is another clause's
            seen = self.table.shape
            return Finding(f"{self.what} has shape {seen}, must have {self.shape}", str(seen))
        table = self.table.astype(np.float64)
        if self.padding is not None:
            table = np.delete(table, self.padding, axis=0)
        deviation = 1.0 if self.profile is Profile.TORCH else float(self.shape[1] ** -0.5)
        return undrawn(table, deviation, self.what)


@dataclass(frozen=True, eq=False)
class DrawnEverywhere(Claim):
    """Tables drawn one after the other, which must agree nowhere.

    Four independent draws agree in one place with a chance of at most the cube of that of the
    likeliest value. In float32 that is below 2**-20 for any usual method (Box and Muller's from
    24-bit numbers gives 0 with 2**-24), so that 1,230 places agree with a chance below 1e-14.

    Attributes
    ----------
    what : str
        Names one of the tables.
    tables : tuple of ndarray
        Of one shape.
    """

    what: str
    tables: tuple[Array, ...]

    def judge(self) -> Finding | None:
        """Look for an element that no draw changes."""
        first, *others = self.tables
        if any(other.shape != first.shape for other in others):
            return None  # another clause's
        same = np.logical_and.reduce([other == first for other in others])
        if not same.any():
            return None
        place = tuple(int(k) for k in np.argwhere(same)[0])
        value = float(first[place])
        return Finding(
            f"element {list(place)} of {self.what} of {' x '.join(map(str, first.shape))} is "
            f"{value:.6g} in each of {len(self.tables)} draws: it is not drawn",
            f"{value:.6g}",
            "drawn anew",
        )


@dataclass(frozen=True, eq=False)
class NoneTwice(Claim):
    """A drawn table in which no row and no column may be another one, or its negative.

    Of 70,001 rows of four independent values, two agree in size with a chance below 2**-40 if no
    size is likelier than 2**-18, which is so of the usual methods in float32.

    Attributes
    ----------
    what : str
        Names the table.
    table : ndarray
    """

    what: str
    table: Array

    def judge(self) -> Finding | None:
        """Count lines that differ."""
        if self.table.ndim != 2 or not self.table.size:
            return None  # another clause's
        shape = " x ".join(map(str, self.table.shape))
        for lines, name in ((self.table, "row"), (self.table.T, "column")):
            sizes = np.ascontiguousarray(np.abs(lines), np.float64)
            mixed = np.sort(_mixed(sizes.view(np.uint64)))  # np.unique takes ten times as long
            if (mixed[1:] != mixed[:-1]).all():
                continue
            repeated = len(sizes) - len(np.unique(sizes, axis=0))
            if repeated:
                return Finding(
                    f"{repeated} {name}s of {self.what} of {shape} repeat others, as they are or "
                    "negated"
                )
        return None


def _mixed(lines: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the words of each line to one, of equal lines to the same one."""
    factors = np.random.default_rng(0).integers(0, 2**63, lines.shape[1], dtype=np.uint64)
    folded = lines ^ (lines >> np.uint64(29))  # of a widened float32 the low bits are zeros
    return np.asarray(folded @ (factors * np.uint64(2) + np.uint64(1)))
