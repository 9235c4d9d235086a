"""Targets that mean to deceive are caught, or it is said why no check of results can see them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embconform.conformance.isolation.isolated import Isolated
from embconform.conformance.options import RunOptions
from embconform.conformance.report import Report
from embconform.conformance.running.engine import run
from embconform.mutants import cheats
from embconform.mutants.cheats.harness import HARNESS
from embconform.reference.clause import Profile

PLACE = "embconform.mutants.cheats.harness"


def judged(name: str) -> Report:
    options = RunOptions(Profile.TORCH, budget="quick", select="lookup.rows,gradient.sum")
    options = replace(options, max_examples=30)
    with Isolated(f"{PLACE}:{name}") as target:
        report = run(target, options, target=name)
        return replace(report, tampered=target.finish())


@pytest.mark.parametrize(("name", "replaced"), HARNESS.items(), ids=list(HARNESS))
def test_what_a_target_replaces_is_named_and_counts(name: str, replaced: tuple[str, ...]) -> None:
    report = judged(name)
    assert report.tampered == replaced
    assert not report.conformant


def test_what_is_out_of_scope_has_a_reason() -> None:
    for way, reason in cheats.OUT_OF_SCOPE.items():
        assert way
        assert len(reason.split()) > 8
