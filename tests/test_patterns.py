"""Patterns of indices: in range, in order where they say so, and with padding among them."""

from __future__ import annotations

import numpy as np
import pytest

from embconform.conformance.cases.patterns import ORDERS, PATTERNS, ordered, sprinkled


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 1), (1, 9), (40, 3), (40, 700)])
@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_is_legal_and_as_long_as_asked(
    name: str, count: int, rows: int, seed: int
) -> None:
    ids = PATTERNS[name](count, rows, np.random.default_rng(seed))
    assert ids.shape == (count,)
    assert ids.dtype == np.int64
    assert ((ids >= 0) & (ids < rows)).all()


def test_distinct_rows_are_distinct_and_swapped_ones_almost_a_run() -> None:
    rng = np.random.default_rng(0)
    assert len(set(PATTERNS["distinct"](40, 700, rng))) == 40
    swapped = PATTERNS["swapped"](40, 700, rng)
    assert swapped[-1] - swapped[0] == 39
    assert (np.diff(swapped) != 1).sum() == 3


def test_orders_are_what_they_say() -> None:
    ids = np.array([4, 1, 9, 1])
    found = {order: ordered(ids, 12, order, (2, 2)).tolist() for order in ORDERS}
    assert found == {
        "as they are": [4, 1, 9, 1],
        "rising": [1, 1, 4, 9],
        "falling": [9, 4, 1, 1],
        "last row last": [4, 1, 9, 11],
        "rising in each row": [1, 4, 1, 9],
    }
    assert ids.tolist() == [4, 1, 9, 1]


@pytest.mark.parametrize("rows", [1, 2, 700])
def test_padding_and_its_neighbours_are_sprinkled_in(rows: int) -> None:
    padding = rows // 2
    seen: set[int] = set()
    for seed in range(40):
        ids = np.full(60, rows - 1)
        seen |= set(sprinkled(ids, rows, padding, np.random.default_rng(seed)).tolist())
        assert (ids == rows - 1).all()
    near = (0, 1, -1, 256, -256)
    assert seen == {padding + step for step in near if 0 <= padding + step < rows} | {rows - 1}
