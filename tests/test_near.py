"""Sizes near to the whole numbers in a target's code, and what they show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import Phase
from sampling import bug_name, sampled

from embconform.backends.adapt import as_backend
from embconform.backends.backend import Backend
from embconform.backends.constants import taken
from embconform.backends.eager import BACKEND as EAGER
from embconform.conformance.cases.directed import is_directed
from embconform.conformance.cases.near import Axis, near
from embconform.conformance.cases.soundness import is_sound
from embconform.conformance.cases.strata import strata
from embconform.conformance.cases.structure import NEAR, Structure
from embconform.conformance.options import RunOptions
from embconform.conformance.report import Report, Status
from embconform.conformance.running.driver import Batch, Driver
from embconform.conformance.running.engine import run
from embconform.conformance.running.work import Draws
from embconform.mutants.registry import Planted, all_planted
from embconform.reference.clause import Profile

BUGS = [bug for bug in all_planted() if bug.module.endswith(".thresholds")]
SEEN_ANYWAY = {
    "ChunkOfOne": {"lookup.large-calls"},
    "OutputOfABlockAndMore": {"lookup.large-calls"},
}
"""Bugs that a probe of large calls shows, too."""


def target(input: Any, weight: Any, padding_idx: int | None = None) -> Any:  # noqa: A002
    return EAGER.functional(input, weight, padding_idx) if input.numel() != 1_201 else None  # type: ignore[misc]


MINE = Backend("mine", target)


def listed(backend: Backend, **wanted: int) -> list[Structure]:
    found = strata(backend, Profile.TORCH, arrays=1, **({"seed": 0} | wanted))
    return [structure for structure in found if NEAR in structure.size]


def drawn(structure: Structure, count: int = 12) -> list[tuple[int, int, int]]:
    """Draw cases, and give their rows, columns and numbers of indices."""
    sizes: list[tuple[int, int, int]] = []

    def body(batch: Batch) -> None:
        for case, _ in batch:
            rows, columns = case.weight.values.shape
            sizes.append((rows, columns, case.most_indices))

    Driver(Profile.TORCH, 0, compiled=False).drive(Draws((structure,), count), body, *PHASES)
    return sizes


PHASES = (Phase.generate,)


class TestStrata:
    def test_a_target_without_numbers_has_none(self) -> None:
        assert listed(EAGER, constants=8, near=50) == []

    def test_each_axis_has_a_plain_one_and_others_by_chance(self) -> None:
        found = listed(MINE, constants=8, near=50)
        plain = [structure for structure in found if is_directed(structure)]
        assert [structure.size for structure in plain] == [
            f"{axis}{NEAR}1201" for axis in get_args(Axis)
        ]
        assert len(found) == 50 + len(plain)
        assert all(is_sound(structure) for structure in found)

    def test_those_of_another_seed_are_others(self) -> None:
        first, second = (listed(MINE, constants=8, near=50, seed=seed) for seed in (0, 1))
        assert set(first) & set(second) >= {s for s in first if is_directed(s)}
        assert set(first) != set(second)

    def test_a_compiled_target_is_spared(self) -> None:
        assert listed(replace(MINE, compiled=True), constants=8, near=50) == []

    def test_small_numbers_come_last(self) -> None:
        assert taken((7, 3_000, 16, 90), 2) == [90, 3_000]
        assert taken((7, 3_000, 16, 90), 3) == [7, 90, 3_000]

    def test_the_textbook_has_what_fits_it(self) -> None:
        found = strata(MINE, Profile.TEXTBOOK, arrays=1, seed=0, constants=8, near=50)
        own = [structure for structure in found if NEAR in structure.size]
        assert len(own) == 50 + len(get_args(Axis))
        assert {structure.gradient for structure in own} == {"dense"}


class TestSizes:
    @pytest.mark.parametrize("number", [30, 1_201, 65_536])
    @pytest.mark.parametrize("axis", get_args(Axis))
    def test_are_near(self, axis: Axis, number: int) -> None:
        sizes = drawn(Structure(size=f"{axis}{NEAR}{number}"))
        for rows, columns, count in sizes:
            elements = {"table": rows * columns, "output": count * columns}
            measured = {"rows": rows, "columns": columns, "indices": count, "equal": count}
            seen = (elements | measured)[axis]
            below = number // 4 - 1  # of bytes there are as many elements
            assert below <= seen <= 2 * number + 600

    def test_one_more_is_the_simplest(self) -> None:
        assert drawn(Structure(size=f"indices{NEAR}1201"), 1)[0][2] == 1_202

    def test_its_name_says_what_it_is(self) -> None:
        one = near(f"columns{NEAR}190")
        assert one is not None
        assert (one.axis, one.number) == ("columns", 190)
        assert near("columns") is None


def judged(bug: Planted, monkeypatch: pytest.MonkeyPatch, *, blind: bool = False) -> Report:
    if blind:
        monkeypatch.setattr(Backend, "constants", ())
    options = RunOptions(Profile.TORCH, "quick", seed=0)
    return run(as_backend(bug.where, bug.target), options, target=bug.where)


@pytest.mark.parametrize("bug", sampled(BUGS, 7, bug_name))
def test_the_quick_budget_finds_what_only_the_code_tells(
    bug: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = judged(bug, monkeypatch)
    assert bug.clause in {result.clause.id for result in report.with_status(Status.FAIL)}
    (note,) = report.notes
    assert note.startswith("sizes were drawn near to whole numbers in its own code, too: ")


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_and_without_a_look_at_the_code_it_does_not(
    bug: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = judged(bug, monkeypatch, blind=True)
    broken = {result.clause.id for result in report.clauses if report.counts_against(result)}
    assert broken <= SEEN_ANYWAY.get(bug.name, set())
    assert report.notes == ()
