"""Lookups under transforms: what is right, what is refused, and what only one clause catches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from sampling import bug_name, sampled
from torch import Tensor

from embconform.backends.adapt import as_backend
from embconform.backends.textbook import BACKEND as TEXTBOOK
from embconform.conformance.probes.registry import Probe
from embconform.conformance.probes.transforms.at_once import AT_ONCE_PROBES
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.eager import TRANSFORM_PROBES
from embconform.conformance.probes.transforms.programs import PROGRAM_PROBES
from embconform.conformance.probes.transforms.recorded import RECORDED_PROBES
from embconform.conformance.report import Report, Status
from embconform.conformance.running.engine import RunOptions, run
from embconform.mutants.module import Layer
from embconform.mutants.registry import Planted, all_planted
from embconform.mutants.transforms_parts import Parts
from embconform.reference.clause import Profile, registry
from embconform.right.by_gather import by_gather

OF_TRANSFORMS = [bug for bug in all_planted() if bug.clause.startswith("transforms.")]
HARD = [bug for bug in OF_TRANSFORMS if ".hard_" in bug.module]
"""Bugs that meet several conditions, and may break several clauses."""
GROUP = [bug for bug in OF_TRANSFORMS if bug not in HARD]
OF_PROGRAMS = {clause for probe in PROGRAM_PROBES for clause in probe.clauses}
TORCHS_OWN = {"transforms.vmap-range", "transforms.vmap-padding", "transforms.vmap-scaled"}


def outcomes(
    target: Any, probes: Iterable[Probe], profile: str = "torch", seed: int = 0
) -> tuple[set[str], set[str]]:
    """The clauses that a target breaks and those that it refuses at least once."""
    backend = as_backend("target", target)
    findings = [
        (ruling.clause, ruling.finding)
        for probe in probes
        for ruling in probe.run(backend, Profile(profile), seed, "cpu")
        if ruling.finding is not None
    ]
    broken = {clause for clause, finding in findings if not finding.refused}
    return broken, {clause for clause, finding in findings if finding.refused}


class TestLookup:
    def made(self, profile: Profile, **options: Any) -> Lookup:
        table = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
        return Lookup(np.array([2, 0, 2]), table, options, profile)

    def test_rows(self) -> None:
        lookup = self.made(Profile.TORCH, padding_idx=2)
        assert lookup.rows().tolist() == [[5, 6], [1, 2], [5, 6]]

    def test_rows_are_masked_in_the_textbook_profile(self) -> None:
        lookup = self.made(Profile.TEXTBOOK, padding_idx=2)
        assert lookup.rows().tolist() == [[0, 0], [1, 2], [0, 0]]

    @pytest.mark.parametrize(
        ("options", "exact"),
        [
            ({}, [[2, 2], [0, 0], [4, 4]]),
            ({"padding_idx": -1}, [[2, 2], [0, 0], [0, 0]]),
            ({"scale_grad_by_freq": True}, [[2, 2], [0, 0], [2, 2]]),
            ({"scale_grad_by_freq": True, "padding_idx": 0}, [[0, 0], [0, 0], [2, 2]]),
        ],
    )
    def test_gradient(self, options: dict[str, Any], exact: list[Any]) -> None:
        upstream = np.array([[1, 1], [2, 2], [3, 3]], np.float32)
        gradient, bound = self.made(Profile.TORCH, **options).gradient(upstream)
        assert gradient.tolist() == exact
        assert (bound <= 1e-5).all()
        assert bound.any() == ("scale_grad_by_freq" in options)


@pytest.mark.parametrize("seed", range(5))
def test_every_rule_written_right_is_accepted_and_nothing_refused(seed: int) -> None:
    assert outcomes(Parts(), TRANSFORM_PROBES, seed=seed) == (set(), set())


@pytest.mark.parametrize("seed", range(5))
def test_textbook_is_accepted_and_refuses_nothing(seed: int) -> None:
    assert outcomes(TEXTBOOK, TRANSFORM_PROBES, "textbook", seed) == (set(), set())


def test_textbook_is_accepted_as_a_program() -> None:
    assert outcomes(TEXTBOOK, PROGRAM_PROBES, "textbook") == (set(), set())


@pytest.mark.parametrize("seed", range(5))
def test_torch_breaks_what_is_declared(seed: int) -> None:
    from embconform.backends.eager import BACKEND

    assert outcomes(BACKEND, TRANSFORM_PROBES, seed=seed) == (TORCHS_OWN, set())


def test_torch_drops_max_norm_from_scripts_and_nothing_else() -> None:
    from embconform.backends.eager import BACKEND

    assert outcomes(BACKEND, PROGRAM_PROBES) == ({"transforms.script-max-norm"}, set())


def test_an_exception_is_a_refusal() -> None:
    broken, refused = outcomes(by_gather, TRANSFORM_PROBES)
    assert broken == set()
    assert {"transforms.vmap-both", "transforms.forward-mode"} <= refused


def only(bug: Planted, probes: Iterable[Probe]) -> set[str]:
    """What a planted bug breaks, less what torch's own lookups break, on which many stand."""
    broken, _ = outcomes(bug.target, probes, bug.profile)
    return broken - (TORCHS_OWN - {bug.clause})


@pytest.mark.parametrize(
    "bug", sampled((bug for bug in GROUP if bug.clause not in OF_PROGRAMS), 4, bug_name)
)
def test_no_other_clause_catches_it(bug: Planted) -> None:
    assert only(bug, (*TRANSFORM_PROBES, *RECORDED_PROBES)) == {bug.clause}


@pytest.mark.parametrize(
    "bug",
    [bug for bug in HARD if bug.clause not in OF_PROGRAMS],
    ids=bug_name,
)
def test_a_hard_bug_is_caught_by_its_clause(bug: Planted) -> None:
    assert bug.clause in only(bug, TRANSFORM_PROBES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bug",
    [bug for bug in GROUP if bug.clause in OF_PROGRAMS],
    ids=bug_name,
)
def test_no_other_clause_catches_a_wrong_program(bug: Planted) -> None:
    assert only(bug, [*TRANSFORM_PROBES, *PROGRAM_PROBES]) == {bug.clause}


def test_a_module_that_functional_call_cannot_reach_is_not_judged_by_it() -> None:
    class Deaf(Layer):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            if not hasattr(self, "table"):
                self.table = [self.weight]
            return self.kernel(input, self.table[0], *self.options)

    broken, refused = outcomes(Deaf, TRANSFORM_PROBES)
    assert broken == {"transforms.functional-call"}
    assert "transforms.vmap-both" in refused


def report(target: Callable[..., Any], **options: Any) -> Report:
    return run(as_backend("target", target), RunOptions(Profile.TORCH, **options), target="target")


@pytest.mark.parametrize("strict", [False, True])
def test_the_quick_budget_leaves_programs_out_and_says_so(strict: bool) -> None:
    select = "transforms.compile-once,transforms.export"
    made = report(Parts(), budget="quick", select=select, strict=strict)
    assert [result.clause.id for result in made.clauses] == select.split(",")
    for result in made.clauses:
        assert result.status is Status.UNTESTED
        assert result.left_out
        assert result.detail == "the quick budget leaves it out"
    assert made.conformant


def test_every_clause_of_the_group_has_a_probe() -> None:
    every = (*TRANSFORM_PROBES, *RECORDED_PROBES, *PROGRAM_PROBES, *AT_ONCE_PROBES)
    judged = [clause for probe in every for clause in probe.clauses]
    assert judged.count("transforms.export") == 1
    assert set(judged) == {clause for clause in registry() if clause.startswith("transforms.")}
