"""One shape of table and indices for each class of sizes: what compiles a size compiles it once."""

from __future__ import annotations

from typing import Final

from embconform.conformance.cases.structure import COUNTED, Structure

_SIZES: Final[dict[str, tuple[int, int, int]]] = {
    "tiny": (5, 4, 6),
    "some": (20, 12, 34),
    "block": (200, 130, 290),
    "many": (300, 3, 1_025),
    "most": (300, 3, 3_073),
    "wide": (4, 257, 6),
    "widest": (4, 2_500, 6),
    "tall": (70_001, 2, 6),
    "apart": (70_001, 2, 6),
    "paced": (30, 16, 9),
    "tiles": (16, 16, 32),
    "longest": (2, 12_300, 6),
    "towering": (600_001, 2, 4_100),
    "populous": (40_001, 2, 1_025),
    "ranked": (300, 3, 1_025),
    "one-column": (5, 1, 6),
    "hot": (40, 3, 5_000),
    "crowd": (5, 4, 5_000),
    "vast": (40, 3, 66_001),
    "no-indices": (5, 4, 0),
    "no-columns": (5, 0, 6),
    "no-rows": (0, 3, 0),
}
"""Rows, columns and indices: between the ends that are drawn elsewhere, and none of them 1."""
NONE: Final = {1: (0,), 2: (2, 0), 3: (0, 2, 3)}
"""Shapes of no index, by the number of dimensions."""


def table_shape(s: Structure) -> tuple[int, int]:
    """Give the numbers of rows and columns."""
    rows, columns, _ = _SIZES[s.size]
    return rows, columns


def index_shape(s: Structure) -> tuple[int, ...]:
    """Give the shape of the indices."""
    *_, count = _SIZES[s.size]
    if not count:
        return NONE.get(s.rank, (0,))
    if s.rank == 0:
        return ()
    if s.size == "vast" and s.rank > 1:  # more rows of indices than a grid has
        return (*(1,) * (s.rank - 2), count, 1)
    lead = (1,) * (s.rank - 2) + (2,) if s.size in COUNTED else (2,) * (s.rank - 1)
    return (*lead[: s.rank - 1], max(count // 2 ** (s.rank - 1), 2))


def one_padding(s: Structure, rows: int) -> int:
    """Give padding that is neither the first nor the last row, counted from either end."""
    return -min(2, rows) if s.padding == "negative" else min(1, rows - 1)
