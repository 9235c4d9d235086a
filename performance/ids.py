"""Index streams: what a table is asked for, and how often."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from embconform.reference.text import python_documentation

Ids = NDArray[np.int64]
KINDS: Final = ("uniform", "zipf", "text", "sorted", "equal")
PADDING: Final = 0
"""The padding row of every workload that has padding; its other ids are 1 and above."""
SEQUENCE: Final = 128
"""Ids of a padded sequence; padding fills its end."""


@cache
def zipf_exponent() -> float:
    """Fit Zipf's law to the words of Python's documentation, by maximum likelihood.

    Returns
    -------
    float
        The exponent a of P(rank r) = r**-a / H, with r = 1 … K over the K words that have a row.

    References
    ----------
    Clauset, Shalizi and Newman, Power-law distributions in empirical data, SIAM Review 51 (2009),
    §3.1, with finite support.
    """
    counts = python_documentation().counts[1:].astype(np.float64)
    return fit_zipf(counts)


def fit_zipf(counts: NDArray[np.float64]) -> float:
    """Fit the exponent of Zipf's law to occurrences.

    Parameters
    ----------
    counts : ndarray of float64, shape (K,)
        Occurrences by rank, the most frequent first.

    Returns
    -------
    float
        In 0.05 … 5.
    """
    logs = np.log(np.arange(1, len(counts) + 1))
    total, weighted = counts.sum(), float(counts @ logs)

    def negative_log_likelihood(exponent: float) -> float:
        return exponent * weighted + float(total * np.log(np.exp(-exponent * logs).sum()))

    found = minimize_scalar(negative_log_likelihood, bounds=(0.05, 5.0), method="bounded")
    return float(found.x)


def draw(kind: str, rows: int, count: int, padding: float, rng: np.random.Generator) -> Ids:
    """Draw a stream of indices.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    rows, count : int
        Rows of the table, and how many indices.
    padding : float
        Share of the indices that are :data:`PADDING`, at the end of each sequence of
        :data:`SEQUENCE`; 0 for none, and then row 0 is a row like any other.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int64, shape (count,)
        In 0..rows-1.

    Raises
    ------
    ValueError
        For a kind that there isn't.
    """
    first = 1 if padding else 0
    if rows - first < 1:
        raise ValueError(f"{rows} rows leave no row beside padding")
    match kind:
        case "uniform":
            ids = rng.integers(first, rows, count)
        case "sorted":
            ids = np.sort(rng.integers(first, rows, count))
        case "equal":
            ids = np.full(count, first + (rows - first) // 2)
        case "zipf":
            ids = first + _zipf(rows - first, count, rng)
        case "text":
            ids = _text(rows, count, first, rng)
        case _:
            raise ValueError(f"no ids called {kind!r}; there are {', '.join(KINDS)}")
    ids = ids.astype(np.int64, copy=False)
    if padding:
        ids[np.arange(count) % SEQUENCE >= round(SEQUENCE * (1 - padding))] = PADDING
    return ids


def _zipf(rows: int, count: int, rng: np.random.Generator) -> Ids:
    """Draw ranks by inverting the distribution function; rank and row are the same."""
    weights = np.arange(1, rows + 1, dtype=np.float64) ** -zipf_exponent()
    cumulative = np.cumsum(weights)
    found = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    return np.asarray(np.minimum(found, rows - 1), np.int64)


def _text(rows: int, count: int, first: int, rng: np.random.Generator) -> Ids:
    """Read on in the text from a random place, from its beginning again after its end.

    Words whose row the table lacks get the rows from `first` on; so do rare words (row 0 in the
    text) where row 0 is padding.
    """
    text = python_documentation().ids
    ids = text[(int(rng.integers(len(text))) + np.arange(count)) % len(text)]
    beyond = ids >= rows
    ids[beyond] = ids[beyond] % rows
    ids[ids < first] = first
    return ids
