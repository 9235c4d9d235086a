"""Every planted bug is rejected by the clause that it was planted for."""

from __future__ import annotations

from collections import Counter

import pytest
from sampling import bug_name, sampled

from embconform.backends.adapt import as_backend
from embconform.conformance.options import RunOptions
from embconform.conformance.report import Status
from embconform.conformance.running.engine import run
from embconform.mutants.registry import Planted, all_planted
from embconform.proof.hunt import hunt
from embconform.reference.clause import Level, Profile, registry

PLANTED = all_planted()
HARD = [bug for bug in PLANTED if ".hard_" in bug.module]
"""Bugs that meet two or three conditions at once, written without a look at the strata."""
PLAIN = [bug for bug in PLANTED if bug not in HARD]

COSTLY = (
    "ScalesBeforeTheMask",
    "ShortPadding",
    "CachedWidening",
    "BlockTailNotRenormed",
    "ThreeSamples",
)
"""Bugs that take thousands of cases; each clause of theirs has others that don't."""
RANKS = {
    bug.name: rank
    for clause in registry()
    for rank, bug in enumerate(b for b in PLAIN if b.clause == clause and b.name not in COSTLY)
}
"""The place of a bug among those of its clause; the first runs in each test run, the others in the
self-test and in the slow tests."""
IN_ORDER = ("SparseSticks",)
"""Bugs that remember calls which their own clause says nothing about."""


@pytest.mark.parametrize(
    "bug",
    [
        pytest.param(
            bug,
            id=bug_name(bug),
            marks=[pytest.mark.slow] * (RANKS.get(bug.name) != 0),
        )
        for bug in PLAIN
    ],
)
def test_planted_bug_is_caught_by_its_clause(bug: Planted) -> None:
    found = hunt(bug, select=bug.clause, aimed=bug.name not in IN_ORDER)
    assert found.own, f"{bug.story} ({found.cases} cases passed)"


@pytest.mark.parametrize("bug", sampled(HARD, 16, bug_name))
def test_hard_bug_is_caught(bug: Planted) -> None:
    found = hunt(bug, until="any")
    assert found.catches, f"{bug.story} ({found.cases} cases passed)"


@pytest.mark.parametrize("bug", sampled(PLAIN[::40], 3, bug_name))
def test_the_report_says_so(bug: Planted) -> None:
    budget = hunt(bug, select=bug.clause, aimed=True).budget
    options = RunOptions(
        Profile(bug.profile), budget=budget, select=bug.clause, fail_fast=True, strict=True
    )
    report = run(as_backend(bug.where, bug.target), options, target=bug.where)
    (result,) = report.clauses
    assert result.status is Status.FAIL
    assert result.failure
    assert result.failure.message
    assert not report.conformant


def test_every_clause_has_a_planted_bug() -> None:
    planted = Counter(bug.clause for bug in (*PLANTED, *all_planted("cuda")))
    assert [clause for clause in registry() if not planted[clause]] == []


@pytest.mark.slow
def test_a_broken_should_clause_leaves_the_verdict_alone() -> None:
    bug = next(b for b in PLANTED if registry()[b.clause].level is Level.SHOULD)
    options = RunOptions(Profile(bug.profile), select=bug.clause, fail_fast=True)
    report = run(as_backend(bug.where, bug.target), options, target=bug.where)
    assert report.with_status(Status.FAIL)
    assert report.conformant
