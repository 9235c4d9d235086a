"""Clauses that are the only ones to catch a planted bug."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from embconform.mutants.registry import by_name
from embconform.proof.hunt import Catch, Hunt
from embconform.proof.log import Log
from embconform.proof.lone import NEVER_ALONE, alone, missing, plan, task
from embconform.proof.tasks import do
from embconform.reference.clause import registry, spoken_of

PAGE = Path(__file__).parents[1] / "docs" / "kill-table.md"
ROW = re.compile(r"\| (?P<clause>[a-z-]+\.[a-z0-9-]+) \| (?P<bugs>.*) \|")


@cache
def claimed() -> dict[str, list[str]]:
    """The page's table: the bugs that each clause alone catches."""
    found: dict[str, list[str]] = {}
    for row in ROW.finditer(PAGE.read_text(encoding="utf-8")):
        bugs = row["bugs"]
        found[row["clause"]] = [] if bugs.startswith("none") else bugs.split(", ")
    return found


def tasks_of(clause: str, name: str) -> list[Hunt]:
    found = [do(task(*key)) for key in by_name() if key[0] == name]
    hunts = [hunt for hunt in found if isinstance(hunt, Hunt) and hunt.catches]
    return [hunt for hunt in hunts if hunt.catches[0].clause == clause]


def test_the_page_has_every_clause() -> None:
    assert list(claimed()) == list(spoken_of("cpu"))


def test_no_reason_is_given_where_a_bug_shows_the_contrary() -> None:
    assert [clause for clause in NEVER_ALONE if claimed()[clause]] == []
    assert NEVER_ALONE.keys() <= registry().keys()


LONE = [(clause, names[0]) for clause, names in claimed().items() if names]


@pytest.mark.parametrize(("clause", "name"), LONE[::100])
def test_a_sample_of_the_page_is_true(clause: str, name: str) -> None:
    assert any(len(hunt.catches) == 1 for hunt in tasks_of(clause, name))


@pytest.mark.slow
@pytest.mark.parametrize(("clause", "name"), LONE)
def test_the_page_is_true(clause: str, name: str) -> None:
    assert any(len(hunt.catches) == 1 for hunt in tasks_of(clause, name))


@pytest.mark.slow
@pytest.mark.parametrize("clause", spoken_of("cpu"))
def test_every_clause_is_alone_once_or_says_why_it_cannot_be(clause: str) -> None:
    assert claimed()[clause] or clause in NEVER_ALONE


def test_a_bug_that_two_clauses_catch_is_nobodys_own() -> None:
    first, second = list(registry())[:2]

    def seen(*clauses: str) -> Hunt:
        caught = tuple(Catch(clause, 1, 0.1, True) for clause in clauses)
        return Hunt("bug", "torch", first, "story", 0, "quick", caught, 1, 0.1)

    one = seen(second)
    found = alone([seen(), one, seen(first, second)])
    assert {clause: bugs for clause, bugs in found.items() if bugs} == {second: [one]}


def test_each_clause_is_looked_at_before_any_is_looked_at_again() -> None:
    planted = Counter(bug.clause for bug in by_name().values())
    names = {(bug.name, bug.profile): bug.clause for bug in by_name().values()}
    order = [names[wished.name, wished.profile] for wished in plan()]
    assert len(order) == len(names)
    assert set(order[: len(planted)]) == set(planted)


class TestMissing:
    def test_is_one_run_for_each_clause_that_has_nothing_to_show(self) -> None:
        clauses = [by_name()[one.name, one.profile].clause for one in missing(Log(), plan())]
        assert len(set(clauses)) == len(clauses)
        assert set(clauses) == spoken_of("cpu").keys() - NEVER_ALONE.keys()

    def test_goes_on_with_another_bug_until_one_is_caught_by_one_clause_alone(self) -> None:
        log, wished = Log(), plan("lookup.rows")
        (first,) = missing(log, wished)
        bug = by_name()[first.name, first.profile]

        def note(*clauses: str) -> None:
            caught = tuple(Catch(clause, 1, 0.1, True) for clause in clauses)
            log.hunts[bug.name, bug.profile, 0] = Hunt(
                bug.name, bug.profile, bug.clause, bug.story, 0, "quick", caught, 1, 0.1
            )

        note("lookup.rows", "lookup.shape")
        (second,) = missing(log, wished)
        assert second != first
        note("lookup.rows")
        assert missing(log, wished) == []
