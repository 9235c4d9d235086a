"""Times of the GPU kernels are held against their targets, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embconform.performance.cuda_targets.rows import Row, plan
from embconform.performance.cuda_targets.verdicts import verdicts


def judged(row: Row, times: dict[str, float], name: str = "triton", **known: Any) -> dict[str, Any]:
    samples = {who: [seconds] * 20 for who, seconds in times.items()}
    known = {"floor": 1.0, "before": {}} | known
    return {v.target: v.met for v in verdicts(row, name, samples, **known)}


def row_of(group: str) -> Row:
    return next(row for row in plan() if row.group == group)


@pytest.mark.parametrize(
    ("group", "times", "met"),
    [
        ("forward", {"triton": 1.08, "aten": 1.1, "inductor": 1.09}, [True, True, True]),
        ("forward", {"triton": 1.10, "aten": 1.1, "inductor": 1.09}, [False, True, False]),
        ("forward", {"triton": 1.08, "aten": 1.1}, [True, True, None]),
        ("small", {"triton": 1.19, "empty": 1.0}, [True]),
        ("small", {"triton": 1.21, "empty": 1.0}, [False]),
        ("backward", {"triton": 1.4, "aten": 2.9}, [True, True]),
        ("backward", {"triton": 1.6, "aten": 3.1}, [False, False]),
        ("equal", {"triton": 1.0, "aten": 5.1}, [True]),
        ("equal", {"triton": 1.0, "aten": 4.9}, [False]),
        ("max_norm", {"triton": 1.0, "aten": 5.1}, [True]),
        ("max_norm", {"triton": 1.0, "aten": 4.9}, [False]),
        ("check", {"triton": 1.0, "aten": 0.1}, []),
    ],
)
def test_targets_are_met_and_missed(group: str, times: dict[str, float], met: list[Any]) -> None:
    assert list(judged(row_of(group), times).values()) == met


def test_the_deterministic_backward_pass_is_held_against_the_atomic_one() -> None:
    name = "triton determ."
    for seconds, met in ((1.29, True), (1.31, False)):
        times = {"triton": 1.0, name: seconds, "aten": 0.1}
        assert list(judged(row_of("backward"), times, name).values()) == [met]


def test_a_cliff_is_seen() -> None:
    row = next(row for row in plan() if row.group == "equal" and row.count == 3_073)
    for before, met in ({3_072: 0.9}, True), ({3_072: 0.5}, False), ({}, None):
        assert list(judged(row, {"triton": 1.0}, before=before).values()) == [met]


def test_slower_is_what_a_whole_interval_says() -> None:
    rng = np.random.default_rng(0)
    row, aten = row_of("forward"), 1 + 0.05 * rng.standard_normal(50)
    for factor, met in ((1.001, True), (1.05, False)):
        ours = factor * (1 + 0.05 * rng.standard_normal(50))
        samples = {"triton": list(ours), "aten": list(aten)}
        found = {v.target: v.met for v in verdicts(row, "triton", samples, floor=1.0, before={})}
        assert found["not slower than aten"] is met
