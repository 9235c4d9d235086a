"""Times of the GPU kernels are held against their targets, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embconform.performance.cuda_targets.ceilings import HOT
from embconform.performance.cuda_targets.contenders import PATHS
from embconform.performance.cuda_targets.reach import reach
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


@pytest.mark.parametrize(
    ("times", "met"),
    [
        ({"cuda-cpp": 1.0, "cuda-cpp atomic": 0.7, "cuda-cpp sorted": 0.1}, False),
        ({"cuda-cpp": 1.0, "cuda-cpp atomic": 2.0}, True),
        ({"cuda-cpp": 0.7, "cuda-cpp atomic": 2.0}, False),
        ({"cuda-cpp sorted": 1.0}, None),
    ],
)
def test_the_deterministic_pass_is_held_against_the_faster(
    times: dict[str, float], met: bool | None
) -> None:
    name = "cuda-cpp determ."
    assert list(judged(row_of("backward"), times | {name: 1.0}, name).values()) == [met]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_users_do_not_choose_has_no_target(path: str) -> None:
    name = f"cuda-cpp {path}"
    assert judged(row_of("backward"), {name: 9.0, "cuda-cpp": 1.0, "aten": 1.0}, name) == {}


def run_of(group: str, times: dict[str, float], hot: float | None = None, ids: str = "") -> Any:
    """A document of one row with a floor of 1 s, 1 GB; an unmeasured contender has no time."""
    results = [
        {"name": name, "time": {"value": seconds} if seconds else None}
        for name, seconds in times.items()
    ]
    size = {"total": 10**9, "written": 1_000}
    entry = {"group": group, "count": 8, "ids": ids, "bytes": size, "floor_seconds": 1.0}
    hot_copies = {"1001": [hot * 1e9, 2 * hot * 1e9, hot * 1e9]} if hot else {"2000": [1.0]}
    return {"rows": {"row": entry | {"results": results}}, "ceilings_ns": {HOT: hot_copies}}


@pytest.mark.parametrize(
    ("group", "times", "seconds", "target", "possible"),
    [
        ("forward", {"aten": 2.0, "inductor": 1.2}, 1 / 0.92, "92% of copying", True),
        ("forward", {"aten": 1.05, "inductor": 1.2}, 1.05, "aten", True),
        ("forward", {"aten": 2.0, "inductor": 0.9}, 0.9, "inductor", False),
        ("forward", {"aten": 2.0, "inductor": 0.0}, 1 / 0.92, "92% of copying", True),
        ("small", {"aten": 2.0, "empty": 0.5}, 0.6, "1.2x empty", False),
        ("small", {"aten": 2.0, "empty": 1.0}, 1.2, "1.2x empty", True),
        ("backward", {"aten": 1.9, "inductor": 0.9}, 0.95, "aten / 2", False),
        ("backward", {"aten": 2.9}, 1.45, "aten / 2", True),
        ("backward", {"aten": 9.0}, 1.5, "1.5x floor", True),
        ("equal", {"aten": 9.0}, 1.8, "aten / 5", True),
        ("max_norm", {"aten": 4.0, "triton": 0.1}, 0.8, "aten / 5", False),
    ],
)
def test_the_strictest_target_is_held_against_the_floor(
    group: str, times: dict[str, float], seconds: float, target: str, possible: bool
) -> None:
    found = reach(run_of(group, times), "row")
    assert found
    assert found.seconds == pytest.approx(seconds)
    assert (found.target, found.possible) == (target, possible)


def test_nothing_is_said_to_be_reachable_without_a_measurement() -> None:
    assert reach(run_of("max_norm", {"aten": 0.0, "triton": 1.0}), "row") is None
    assert reach(run_of("check", {"aten": 1.0}), "row") is None
    assert reach(run_of("forward", {"aten": 1.0}), "another") is None


def test_lookups_of_few_rows_are_held_against_a_hot_copy_too() -> None:
    asked = reach(run_of("forward", {"aten": 3.0}, hot=2.0, ids="zipf"), "row")
    assert asked
    assert asked.said == "92% of copying, 1.09x floor, 0.54x hot copy"
    for other in ("uniform", 2.0), ("zipf", None):
        plain = reach(run_of("forward", {"aten": 3.0}, hot=other[1], ids=other[0]), "row")
        assert plain
        assert plain.said == "92% of copying, 1.09x floor"


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
