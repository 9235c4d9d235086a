"""The registry: every clause is complete, quotable and decided by somebody."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from embconform.backends.backend import Backend
from embconform.conformance.judging import judge, judges
from embconform.conformance.probes.registry import probes
from embconform.conformance.views import CallView
from embconform.reference.clause import Clause, Level, Profile, registry, select

CLAUSES = list(registry().values())


def nothing() -> None:
    """Stands for both forms of a backend that can do everything."""


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.id)
class TestEveryClause:
    def test_is_called_group_dot_name(self, clause: Clause) -> None:
        assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*", clause.id)
        assert clause.group == clause.id.split(".")[0]

    def test_is_one_sentence(self, clause: Clause) -> None:
        assert clause.sentence.endswith(".")
        assert clause.sentence == " ".join(clause.sentence.split())
        assert len(clause.sentence) <= 300

    def test_names_its_source(self, clause: Clause) -> None:
        assert clause.source.strip()
        assert clause.source == " ".join(clause.source.split())

    def test_has_a_few_lines_of_python_for_an_example(self, clause: Clause) -> None:
        lines = clause.example.split("\n")
        assert 1 <= len(lines) <= 3
        assert all(line.strip() and len(line) <= 100 for line in lines)
        compile(clause.example, clause.id, "exec")

    def test_needs_what_a_backend_can_be_able_to_do(self, clause: Clause) -> None:
        able = Backend("all", functional=nothing, module=nothing).able
        assert clause.needs <= able

    def test_has_a_level_and_a_profile(self, clause: Clause) -> None:
        assert clause.level in Level
        assert clause.profiles
        assert clause.profiles <= frozenset(Profile)
        assert clause.profile in {"both", *Profile}


class TestWhoDecides:
    def test_every_clause_has_a_judge_or_a_probe(self) -> None:
        judged = {entry.clause for entries in judges().values() for entry in entries}
        probed = {clause for probe in probes() for clause in probe.clauses}
        assert judged | probed == set(registry())
        assert not judged & probed

    def test_no_clause_is_judged_twice_on_one_view(self) -> None:
        for kind, entries in judges().items():
            named = [(entry.clause, entry.value, entry.check) for entry in entries]
            assert len(set(named)) == len(named), kind

    def test_a_judge_without_a_clause_is_refused(self) -> None:
        with pytest.raises(KeyError, match=r"lookup\.no-such-clause"):
            judge("lookup.no-such-clause", CallView, lambda _: True)


class TestSelection:
    def test_ids_are_unique(self) -> None:
        assert len({clause.id for clause in CLAUSES}) == len(CLAUSES)

    @pytest.mark.parametrize("profile", list(Profile))
    def test_all_of_a_profile(self, profile: Profile) -> None:
        found = select(profile)
        assert found == [clause for clause in CLAUSES if profile in clause.profiles]
        assert len(found) > 80

    def test_patterns_are_joined_by_commas(self) -> None:
        found = select(Profile.TORCH, "sparse.*, lookup.rows")
        assert {clause.group for clause in found} == {"sparse", "lookup"}
        assert [clause.id for clause in found if clause.group == "lookup"] == ["lookup.rows"]

    def test_of_the_other_profile_nothing_is_found(self) -> None:
        assert select(Profile.TEXTBOOK, "sparse.*") == []
        assert select(Profile.TORCH, "no-such.*") == []

    def test_groups_stand_together(self) -> None:
        groups = [clause.group for clause in CLAUSES]
        changes = sum(a != b for a, b in pairwise(groups))
        assert changes == len(set(groups)) - 1

    def test_both_profiles_are_the_same_where_they_must_be(self) -> None:
        shared = {clause.id for clause in CLAUSES if clause.profile == "both"}
        assert {"lookup.rows", "errors.too-large", "gradient.sum"} <= shared
        assert "max-norm.in-place" not in shared
