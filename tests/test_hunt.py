"""Hunts of many bugs in one process: what is kept for the next, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embconform.conformance.options import BUDGETS, Budget
from embconform.mutants.registry import by_name
from embconform.proof.hunt import PROGRAMS, Hunt, hunt
from embconform.proof.replaying import _KEPT

BUG = by_name()["ZeroMeansNoPadding", "torch"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(arrays=0, examples=1, directed=2, seconds=600)
    monkeypatch.setitem(BUDGETS, "quick", budget)


def forget() -> None:
    for kept in _KEPT.values():
        kept.run = None


def timeless(found: Hunt) -> Hunt:
    catches = tuple(replace(catch, seconds=0.0) for catch in found.catches)
    return replace(found, catches=catches, seconds=0.0)


def test_replayed_cases_are_those_that_were_drawn() -> None:
    forget()
    drawn, replayed = (timeless(hunt(BUG, budgets=("quick",), until="end")) for _ in range(2))
    assert drawn == replayed
    assert len(drawn.catches) > 1


def test_an_aimed_hunt_is_shorter_and_finds_the_same() -> None:
    plain = hunt(BUG, budgets=("quick",), select=BUG.clause)
    aimed = hunt(BUG, budgets=("quick",), select=BUG.clause, aimed=True)
    assert plain.own
    assert aimed.own
    assert aimed.cases <= plain.cases


def test_a_probes_clause_takes_no_cases() -> None:
    bug = by_name()["NarrowInit", "torch"]
    assert hunt(bug, select=bug.clause).cases == 1


def test_compiled_programs_are_run_by_themselves() -> None:
    bug = by_name()["clamps_when_compiled", "torch"]
    found = hunt(bug, budgets=(PROGRAMS,), select=bug.clause)
    assert found.own
    assert found.cases == 1
