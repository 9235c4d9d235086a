"""The compiled backend: a few structures in every run, all of them in the slow one."""

from __future__ import annotations

from shutil import which

import pytest

from embconform.backends.compile import BACKEND
from embconform.backends.deviations import active, load
from embconform.conformance.options import RunOptions
from embconform.conformance.report import BROKEN, Status
from embconform.conformance.running.engine import run
from embconform.reference.clause import Profile

pytestmark = pytest.mark.skipif(
    not any(map(which, ("g++", "clang++", "c++"))),
    reason="Inductor needs a C++ compiler, and none is on the PATH",
)


def options(**given: object) -> RunOptions:
    assert BACKEND.deviations is not None
    return RunOptions(Profile.TORCH, deviations=active(load(BACKEND.deviations)), **given)  # type: ignore[arg-type]


PLAINEST = "lookup.*,padding.*,gradient.sum,gradient.frozen,errors.too-large"
"""Clauses that cases alone judge: each probe compiles for seconds."""


@pytest.mark.parametrize("select", [PLAINEST, pytest.param("*", marks=pytest.mark.slow)])
def test_the_plainest_structures_conform(select: str) -> None:
    report = run(BACKEND, options(max_examples=10, select=select), target="compile")
    assert report.with_status(*BROKEN) == []
    assert len(report.with_status(Status.PASS)) > 10


@pytest.mark.slow
def test_compile_conforms_and_exercises_nearly_all_clauses() -> None:
    report = run(BACKEND, options(), target="compile")
    assert report.conformant
    exercised = [result for result in report.clauses if result.exercised]
    assert len(exercised) >= 0.95 * len(report.clauses)
