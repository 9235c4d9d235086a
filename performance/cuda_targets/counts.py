"""Bytes and operations of a row, counted before anything is measured."""

from __future__ import annotations

from typing import Final

import numpy as np

from embconform.performance.cuda_targets.rows import Row
from embconform.performance.floors import INDEX_BYTES, Traffic

SPEEDS: Final = {"H100": 3.0e12, "H200": 4.3e12}
"""Bytes a second of a large copy, read and written, as measured before; what predictions use."""


def traffic(row: Row, distinct: float, scaled: float = 0.0) -> Traffic:
    """Count the bytes that a row must move, however it is written.

    Parameters
    ----------
    row : Row
    distinct : float
        Rows that its indices name.
    scaled : float
        Rows of these that max_norm scales.

    Returns
    -------
    Traffic

    Notes
    -----
    A forward pass reads N indices and each named row once, and writes N rows; with max_norm it
    also writes the rows that it scales. A dense backward pass reads N indices and N rows, and
    writes the V rows of the gradient once.
    """
    ids = INDEX_BYTES * row.count
    if row.group in ("backward", "equal"):
        return Traffic(ids + row.output, row.rows * row.line)
    return Traffic(ids + round(distinct * row.line), row.output + round(scaled * row.line))


def operations(row: Row, distinct: float, scaled: float = 0.0) -> int:
    """Count the additions and multiplications of a row; see :func:`traffic`.

    A backward pass adds each upstream element to a sum. A norm takes a multiplication and an
    addition an element, and scaling one multiplication more.
    """
    if row.group in ("backward", "equal"):
        return row.count * row.width
    if row.group == "max_norm":
        return round((2 * distinct + scaled) * row.width)
    return 0


def expected_distinct(row: Row, exponent: float) -> float:
    """Say how many rows the indices of a row name on average.

    Parameters
    ----------
    row : Row
    exponent : float
        Of Zipf's law.

    Returns
    -------
    float
    """
    if row.ids == "equal":
        return 1.0
    if row.ids == "uniform":
        return float(-row.span * np.expm1(row.count * np.log1p(-1 / row.span)))
    weights = np.arange(1, row.span + 1, dtype=np.float64) ** -exponent
    return float(-np.expm1(row.count * np.log1p(-weights / weights.sum())).sum())
