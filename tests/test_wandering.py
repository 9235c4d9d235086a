"""Programs of many steps in any order: legal, varied, and able to show what no other shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import Phase
from sampling import bug_name, sampled

from embconform.backends.adapt import as_backend
from embconform.backends.backend import Capabilities
from embconform.backends.eager import BACKEND as EAGER
from embconform.conformance.cases.case import Backward, Call, Case, WriteIndices
from embconform.conformance.cases.strata import strata
from embconform.conformance.cases.structure import Structure
from embconform.conformance.options import RunOptions
from embconform.conformance.report import Report, Status
from embconform.conformance.running import explorer
from embconform.conformance.running.driver import Batch, Driver
from embconform.conformance.running.engine import run
from embconform.conformance.running.work import BATCH, Draws
from embconform.mutants.registry import Planted, all_planted
from embconform.reference.clause import Profile

BUGS = [bug for bug in all_planted() if bug.module.endswith(".wandering")]
WANDERING = [s for s in strata(EAGER, Profile.TORCH, arrays=4, seed=3) if s.program == "wandering"]


def cases(structures: list[Structure]) -> list[Case]:
    found: list[Case] = []

    def body(batch: Batch) -> None:
        found.extend(case for case, _ in batch)

    driver = Driver(Profile.TORCH, 0, compiled=False)
    for few in batched(structures):
        driver.drive(Draws(few, 2), body, Phase.generate)
    return found


def batched(structures: list[Structure]) -> list[tuple[Structure, ...]]:
    return [tuple(structures[k : k + BATCH]) for k in range(0, len(structures), BATCH)]


CASES = cases(WANDERING)


def test_there_are_many_and_they_are_long() -> None:
    assert len(CASES) >= 100
    assert sum(len(case.steps) for case in CASES) / len(CASES) > 8


def test_every_kind_of_step_occurs() -> None:
    kinds = Counter(type(step).__name__ for case in CASES for step in case.steps)
    assert set(kinds) == {"Call", "Backward", "ClearGradient", "WriteWeight", "WriteIndices"}
    calls = [step for case in CASES for _, step in case.calls]
    assert any(call.must_raise for call in calls)
    assert any(call.reuse is not None for call in calls)
    assert {call.context for call in calls} == {None, "no_grad", "inference"}


def test_passes_go_through_calls_that_may_be_differentiated_once() -> None:
    for case in CASES:
        done = set[int]()
        for step in case.steps:
            if isinstance(step, Backward):
                assert case.mode == "grad"
                assert not done & set(step.calls)
                for number in step.calls:
                    call = case.steps[number]
                    assert isinstance(call, Call)
                    assert call.context is None
                    assert not call.must_raise
                if not step.retain_graph:
                    done |= set(step.calls)


def test_indices_are_written_to_when_no_graph_needs_them() -> None:
    for case in CASES:
        for position, step in enumerate(case.steps):
            if isinstance(step, WriteIndices):
                after = case.steps[position + 1]
                assert isinstance(after, Call)
                assert after.reuse == step.call
                later = [s for s in case.steps[position:] if isinstance(s, Backward)]
                given = {
                    n for n, call in case.calls if n < position and owner(n, call) == step.call
                }
                assert not any(set(one.calls) & given for one in later)


def test_without_a_gradient_there_are_calls_and_writes_only() -> None:
    plain = replace(EAGER, capabilities=Capabilities(gradient=False, double_backward=False))
    found = [s for s in strata(plain, Profile.TORCH, arrays=1, seed=0) if s.program == "wandering"]
    assert {s.mode for s in found} == {"frozen"}
    assert not any(isinstance(step, Backward) for case in cases(found) for step in case.steps)


def owner(number: int, call: Call) -> int:
    return number if call.reuse is None else call.reuse


def judged(bug: Planted, monkeypatch: pytest.MonkeyPatch, *, wandering: bool) -> Report:
    every = explorer.strata
    monkeypatch.setattr(
        explorer,
        "strata",
        lambda *given, **named: [
            s for s in every(*given, **named) if (s.program == "wandering") == wandering
        ],
    )
    options = RunOptions(Profile.TORCH, "quick" if not wandering else "default", select=bug.clause)
    return run(as_backend(bug.where, bug.target), options, target=bug.where)


@pytest.mark.parametrize("bug", sampled(BUGS, 2, bug_name))
def test_they_show_what_follows_from_an_order_of_steps(
    bug: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = judged(bug, monkeypatch, wandering=True)
    assert [r.clause.id for r in report.with_status(Status.FAIL)] == [bug.clause]


@pytest.mark.parametrize("bug", sampled(BUGS, 2, bug_name))
def test_which_the_other_programs_do_not(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    report = judged(bug, monkeypatch, wandering=False)
    assert not report.with_status(Status.FAIL)
