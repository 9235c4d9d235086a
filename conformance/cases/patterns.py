"""Patterns of many indices: which rows they name, how often, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Rng = np.random.Generator


def _cyclic(count: int, rows: int, rng: Rng) -> Ids:
    return np.asarray(np.arange(count) % rows)


def _lone(count: int, rows: int, rng: Rng) -> Ids:
    """Name the last row once, at the first, the middle or the last place."""
    if rows == 1:
        return np.zeros(count, np.int64)
    ids = rng.integers(0, rows - 1, count)
    ids[(-1, 0, count // 2)[rng.integers(3)]] = rows - 1
    return ids


def _uniform(count: int, rows: int, rng: Rng) -> Ids:
    return rng.integers(0, rows, count)


def _skewed(count: int, rows: int, rng: Rng) -> Ids:
    return np.asarray(np.minimum(rng.zipf(1.5, count), rows) - 1)


def _equal(count: int, rows: int, rng: Rng) -> Ids:
    return np.full(count, rng.integers(rows), np.int64)


def _hot(count: int, rows: int, rng: Rng) -> Ids:
    """Name one row but for seven indices."""
    ids = _equal(count, rows, rng)
    ids[rng.integers(0, count, 7)] = rng.integers(0, rows, 7)
    return ids


def _top(count: int, rows: int, rng: Rng) -> Ids:
    return np.asarray(rows - 1 - rng.integers(0, min(rows, 5), count))


def _inner(count: int, rows: int, rng: Rng) -> Ids:
    """Name neither the first row nor the last."""
    first = min(1, rows - 1)
    return rng.integers(first, max(rows - 1, first + 1), count)


def _distinct(count: int, rows: int, rng: Rng) -> Ids:
    """Name no row twice while the rows last."""
    return np.resize(rng.permutation(rows), count)


def _swapped(count: int, rows: int, rng: Rng) -> Ids:
    """Count up from some row, with two neighbours in the middle changed over."""
    ids = np.asarray((np.arange(count) + rng.integers(max(rows - count, 0) + 1)) % rows)
    middle = count // 2
    if count > 3:
        ids[[middle - 1, middle]] = ids[[middle, middle - 1]]
    return ids


def _runs(count: int, rows: int, rng: Rng) -> Ids:
    """Name a row several times in a row, and come back to it later."""
    return np.repeat(rng.integers(0, rows, count), rng.integers(1, 6, count))[:count]


def _edges(count: int, rows: int, rng: Rng) -> Ids:
    """Name the first and last rows of shards, whichever way a table is cut in 2, 3, 4 or 8."""
    cuts = {length for shards in (2, 3, 4, 8) for length in (rows // shards, -(-rows // shards))}
    edges = {0, rows - 1, *(cut - 1 for cut in cuts), *cuts}
    return rng.choice(sorted(edge for edge in edges if 0 <= edge < rows), count)


def _alike(count: int, rows: int, rng: Rng) -> Ids:
    """Name rows that are alike in their lowest bits, in as many as two rows can be, at most 16."""
    most = min(int(max(rows - 1, 1)).bit_length() - 1, 16)
    step = 1 << (most if rng.integers(4) else int(rng.integers(most + 1)))
    first = rng.integers(max(rows - step, 1))
    return rng.choice(np.arange(first, rows, step), count)


def _apart(count: int, rows: int, rng: Rng) -> Ids:
    """Rise from a few of the first rows to a few of the last, far more than a byte apart."""
    near, low = min(50, rows), count // 2
    first, last = rng.integers(0, near, low), rows - 1 - rng.integers(0, near, count - low)
    return np.sort(np.concatenate([first, last]))


def _falling(count: int, rows: int, rng: Rng) -> Ids:
    """Count down by one, as relative positions do and a text that is read from its end."""
    top = count - 1 + rng.integers(max(rows - count, 0) + 1)
    return np.asarray((top - np.arange(count)) % rows)


def _paced(count: int, rows: int, rng: Rng) -> Ids:
    """Count up or down in steps of one size, from either end round to the other."""
    step = int(rng.integers(1, 6)) * (-1) ** int(rng.integers(2))
    return np.asarray((rng.integers(rows) + step * np.arange(count)) % rows)


def _mirrored(count: int, rows: int, rng: Rng) -> Ids:
    """Read the same from either end."""
    half = rng.integers(0, rows, -(-count // 2))
    return np.concatenate([half, half[: count // 2][::-1]])


def _doubled(count: int, rows: int, rng: Rng) -> Ids:
    """Say what the first half says again, but for one index."""
    ids = np.resize(rng.integers(0, rows, -(-count // 2)), count)
    ids[rng.integers(count)] = rng.integers(rows)
    return ids


def _late(count: int, rows: int, rng: Rng) -> Ids:
    """Name half of the rows at the last places only."""
    ids = rng.integers(0, -(-rows // 2), count)
    last = min(count, 2 * rows)
    ids[count - last :] = rng.integers(0, rows, last)
    return ids


def _brink(count: int, rows: int, rng: Rng) -> Ids:
    """Name the last rows, and those where an index times their number passes 31 bits."""
    brink = 2**31 // count
    named = np.array([rows - 1, rows - 2, brink, brink, brink + 1, brink - 1])
    return np.asarray(rng.choice(named, count) % rows)


def _few(count: int, rows: int, rng: Rng) -> Ids:
    return rng.choice(rng.integers(0, rows, 3), count)


PATTERNS: Final[Mapping[str, Callable[[int, int, Rng], Ids]]] = {
    "cyclic": _cyclic,
    "lone": _lone,
    "uniform": _uniform,
    "skewed": _skewed,
    "equal": _equal,
    "hot": _hot,
    "top": _top,
    "inner": _inner,
    "distinct": _distinct,
    "swapped": _swapped,
    "runs": _runs,
    "few": _few,
    "brink": _brink,
    "alike": _alike,
    "edges": _edges,
    "apart": _apart,
    "falling": _falling,
    "paced": _paced,
    "mirrored": _mirrored,
    "doubled": _doubled,
    "late": _late,
}
IN_EACH: Final = "rising in each row"
"""An order as the positions of a batch of texts have it: each row begins again."""
ORDERS: Final = ("as they are", "rising", "as they are", "falling", "last row last", IN_EACH)
NEIGHBOURS: Final = (0, 0, 0, 1, -1, 256, -256)
"""What is put beside padding: rows that a mask in fewer bits takes for it."""


def sprinkled(ids: Ids, rows: int, padding: int, rng: Rng) -> Ids:
    """Put padding, and rows that a sloppy mask takes for padding, in random places.

    Parameters
    ----------
    ids : ndarray of int64, shape (n,)
    rows : int
    padding : int
        In 0 .. rows - 1.
    rng : Generator

    Returns
    -------
    ndarray of int64, shape (n,)
        `ids` itself once in eight times.
    """
    if rng.integers(8) == 0:
        return ids
    share = (0.1, 0.3, 0.6)[rng.integers(3)]
    named = padding + rng.choice(NEIGHBOURS, len(ids))
    legal = (named >= 0) & (named < rows) & (rng.random(len(ids)) < share)
    return np.where(legal, named, ids)


def filled_up(ids: Ids, padding: int, rng: Rng) -> Ids:
    """Fill up with padding from some place on, or up to it, as a batch of unequal lengths is.

    Parameters
    ----------
    ids : ndarray of int64, shape (n,)
    padding : int
    rng : Generator

    Returns
    -------
    ndarray of int64, shape (n,)
        `ids` itself once in four times.
    """
    kind = rng.integers(4)
    if kind == 0 or not len(ids):
        return ids
    filled, place = ids.copy(), rng.integers(1, len(ids) + 1)
    if kind == 1:
        filled[place:] = padding
    else:
        filled[place : place + rng.integers(len(ids))] = padding
    return filled


def ordered(ids: Ids, rows: int, order: str, shape: tuple[int, ...]) -> Ids:
    """Put indices of a shape in an order of :data:`ORDERS`; they come and go flat."""
    if order == IN_EACH and shape:
        return np.sort(ids.reshape(shape), axis=-1).reshape(-1)
    if order == "rising":
        return np.sort(ids)
    if order == "falling":
        return np.sort(ids)[::-1].copy()
    if order == "last row last" and len(ids):
        return np.append(ids[:-1], rows - 1)
    return ids
