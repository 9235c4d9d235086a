"""Judges bear every outcome, however odd, and say what is wrong with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from embconform.backends.backend import Backend
from embconform.backends.eager import BACKEND as EAGER
from embconform.backends.textbook import BACKEND as TEXTBOOK
from embconform.conformance.cases.case import Backward, Call, Case, Placed
from embconform.conformance.cases.strata import strata
from embconform.conformance.judging import Ruling, rule
from embconform.conformance.observe import observe
from embconform.conformance.outcome import GradientSeen, Outcome, Raised, StepSeen, TensorSeen
from embconform.conformance.repro import script, snippet
from embconform.conformance.running.driver import Batch, Driver
from embconform.conformance.running.work import Draws
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, in_float64
from embconform.reference.oracle import Options

Seen = tuple[Case, Outcome, Backend]
BACKENDS = {Profile.TORCH: EAGER, Profile.TEXTBOOK: TEXTBOOK}
ODD = Raised("OddError", ("OddError", "Exception", "object"), "")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def outcomes(profile: Profile) -> list[Seen]:
    """A case of every second stratum, the last of three since the first is the smallest."""
    backend, found = BACKENDS[profile], []
    driver = Driver(profile, 0, compiled=False)
    for structure in strata(backend, profile, arrays=1, seed=0)[::2]:
        batches: list[Batch] = []
        driver.drive(Draws((structure,), 3), batches.append, Phase.generate)
        ((case, _),) = batches[-1]
        if case.cost < 400:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append((case, observe(backend, case), backend))
    assert len(found) > 80
    return found


@pytest.fixture(scope="module")
def _outcomes() -> None:
    """Draw the cases before a test does that is drawn from itself."""
    for profile in Profile:
        outcomes(profile)


def rulings(case: Case, outcome: Outcome) -> list[Ruling]:
    return list(rule(case, outcome))


def broken(case: Case, outcome: Outcome) -> set[str]:
    return {ruling.clause for ruling in rulings(case, outcome) if ruling.finding}


# Damages: each takes what was seen of one step and gives what might have been seen


def output(change: Callable[[Array], Array | None]) -> Callable[[StepSeen], StepSeen]:
    """Damage the output; nothing is a target that returned None."""

    def damage(seen: StepSeen) -> StepSeen:
        if seen.output is None:
            return seen
        values = change(seen.output.values)
        if values is None:
            return replace(seen, output=None, returned="NoneType")
        return replace(seen, output=TensorSeen(values, values.dtype.name))

    return damage


def gradient(**changes: Any) -> Callable[[StepSeen], StepSeen]:
    """Replace fields of a gradient, by values or by functions of it."""

    def damage(seen: StepSeen) -> StepSeen:
        if seen.gradient is None:
            return seen
        made = {k: v(seen.gradient) if callable(v) else v for k, v in changes.items()}
        return replace(seen, gradient=replace(seen.gradient, **made))

    return damage


def memory(**changes: Any) -> Callable[[StepSeen], StepSeen]:
    def damage(seen: StepSeen) -> StepSeen:
        made = {k: v(seen.memory) if callable(v) else v for k, v in changes.items()}
        return replace(seen, memory=replace(seen.memory, **made))

    return damage


def nans(array: Array | None) -> Array | None:
    return None if array is None else filled(array, np.nan)


def filled(array: Array, value: float) -> Array:
    """Fill with a value that whole numbers don't have."""
    return array if array.dtype.kind in "biu" else np.full_like(array, value)


def narrow(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.real.astype(np.float16)


def more_rows(seen: GradientSeen) -> Any:
    return None if seen.rows is None else seen.rows + 1000


def flat_entries(seen: GradientSeen) -> Any:
    return None if seen.entries is None else seen.entries.reshape(-1)[: len(seen.entries)]


DAMAGES: dict[str, Callable[[StepSeen], StepSeen]] = {
    "output is None": output(lambda _: None),
    "output is flat": output(lambda v: v.reshape(-1)),
    "output has an axis more": output(lambda v: v[None]),
    "output is a number": output(lambda v: np.zeros((), v.dtype)),
    "output is empty": output(lambda v: np.zeros((0,), v.dtype)),
    "output has a column more": output(
        lambda v: np.zeros((*v.shape, 1), v.dtype) if v.ndim == 0 else np.append(v, v[..., :1], -1)
    ),
    "output is float64": output(lambda v: in_float64(v.real)),
    "output is float16": output(narrow),
    "output is int64": output(lambda v: np.zeros(v.shape, np.int64)),
    "output is bool": output(lambda v: np.ones(v.shape, np.bool_)),
    "output is complex": output(lambda v: np.ones(v.shape, np.complex64)),
    "output is float8": output(lambda v: np.ones(v.shape, ml_dtypes.float8_e5m2)),
    "output is NaN": output(nans),
    "output is infinite": output(lambda v: filled(v, np.inf)),
    "output is zero": output(np.zeros_like),
    "output is shared": lambda seen: replace(
        seen, shares=("weight", "indices", "output of step 0")
    ),
    "output is detached": lambda seen: replace(seen, requires_grad=not seen.requires_grad),
    "gradient is None": lambda seen: replace(seen, gradient=None),
    "gradient is NaN": gradient(dense=lambda g: nans(g.dense), entries=lambda g: nans(g.entries)),
    "gradient is flat": gradient(
        dense=lambda g: None if g.dense is None else g.dense.reshape(-1),
        shape=lambda g: (int(np.prod(g.shape)),),
    ),
    "gradient is of another dtype": gradient(dtype="float16"),
    "gradient is of another layout": gradient(layout="sparse_csr", dense=None, rows=None),
    "gradient has no entries": gradient(entries=None),
    "gradient names rows beyond": gradient(rows=more_rows),
    "gradient is sparse in both axes": gradient(entries=flat_entries, sparse_dim=2),
    "gradient says that it is coalesced": gradient(coalesced=True),
    "table is NaN": memory(weight=lambda m: nans(m.weight)),
    "table is zero": memory(weight=lambda m: np.zeros_like(m.weight)),
    "indices are zero": memory(
        indices=lambda m: {k: np.zeros_like(v) for k, v in m.indices.items()}
    ),
    "guards are overwritten": memory(outside_weight=False, outside_indices=False),
    "raised": lambda seen: replace(seen, raised=ODD, output=None),
    "raised and returned": lambda seen: replace(seen, raised=ODD),
    "nothing raised": lambda seen: replace(seen, raised=None),
}
SEEN_BY_SOMEBODY = sorted(set(DAMAGES) - {"raised and returned"})
OF_SPARSE_GRADIENTS = (
    "gradient has no entries",
    "gradient names rows beyond",
    "gradient is sparse in both axes",
    "gradient says that it is coalesced",
)
"""Of no effect under the textbook profile, which has no sparse gradient."""


def damaged(outcome: Outcome, step: int, kind: str) -> Outcome:
    steps = list(outcome.steps)
    steps[step] = DAMAGES[kind](steps[step])
    if kind.startswith("raised"):
        del steps[step + 1 :]
    return replace(outcome, steps=tuple(steps))


def guarded(case: Case) -> bool:
    """Tell whether there is memory around the table and the indices that can be overwritten."""
    placed = (case.weight, *(call.indices for _, call in case.calls))
    return all(p.layout != "contiguous" for p in placed)


@pytest.mark.parametrize(
    ("kind", "profile"),
    [
        (kind, profile)
        for kind in DAMAGES
        for profile in Profile
        if profile is Profile.TORCH or kind not in OF_SPARSE_GRADIENTS
    ],
)
def test_no_damage_is_too_much(kind: str, profile: Profile) -> None:
    found = set()
    for case, outcome, backend in outcomes(profile):
        if kind == "guards are overwritten" and not guarded(case):
            continue
        for step in range(len(outcome.steps)):
            for ruling in rulings(case, damaged(outcome, step, kind)):
                if ruling.finding and ruling.clause not in found:
                    found.add(ruling.clause)
                    assert ruling.finding.message
                    assert script(case, ruling.finding, backend, backend.name) is not None
                    assert snippet(case, ruling.finding)
    assert found or kind not in SEEN_BY_SOMEBODY


@pytest.mark.usefixtures("_outcomes")
@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(st.data())
def test_nor_are_several(data: st.DataObject) -> None:
    case, outcome, _ = data.draw(st.sampled_from(outcomes(data.draw(st.sampled_from(Profile)))))
    for _ in range(data.draw(st.integers(1, 4))):
        step = data.draw(st.integers(0, len(outcome.steps) - 1))
        outcome = damaged(outcome, step, data.draw(st.sampled_from(list(DAMAGES))))
    rulings(case, outcome)


@pytest.mark.parametrize("final", [{}, {0: np.zeros((7, 7))}, {0: np.zeros((), np.int8)}])
def test_final_outputs_may_be_anything(final: dict[int, Array]) -> None:
    for case, outcome, _ in outcomes(Profile.TORCH):
        rulings(case, replace(outcome, final_outputs=final))


@pytest.mark.parametrize("profile", list(Profile))
def test_an_outcome_may_be_cut_short(profile: Profile) -> None:
    for case, outcome, _ in outcomes(profile):
        for length in range(len(outcome.steps)):
            assert not broken(case, replace(outcome, steps=outcome.steps[:length])) - KNOWN


KNOWN = {
    "max-norm.finite",
    "gradient.float32-accumulation",
    "gradient.double-backward-scaled",
    "sparse.scalar-index",
    "errors.names-the-index",
    "errors.negative-wraps",
    "errors.atomic",
}
"""What torch's own embedding and the document's layer break."""

PLAIN = Case(
    "plain",
    Profile.TORCH,
    Placed(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)),
    Options(),
    "grad",
    "functional",
    (
        Call(Placed(np.array([2, 0]))),
        Backward((0,), (Placed(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)),)),
    ),
)


class TestWhatIsFound:
    """Each damage breaks the clauses that are about it, and no others."""

    @pytest.mark.parametrize(
        ("kind", "step", "clauses"),
        [
            ("output is None", 0, {"lookup.shape"}),
            ("output is flat", 0, {"lookup.shape"}),
            ("output is float64", 0, {"lookup.dtype"}),
            ("output is NaN", 0, {"lookup.rows", "state.outputs-intact"}),
            ("output is detached", 0, {"gradient.requires-grad"}),
            ("output is shared", 0, {"lookup.fresh-output"}),
            ("gradient is None", 1, {"gradient.shape-and-dtype"}),
            ("gradient is of another dtype", 1, {"gradient.shape-and-dtype"}),
            ("gradient is NaN", 1, {"gradient.sum", "gradient.zeros-elsewhere"}),
            ("table is zero", 1, {"lookup.weight-unchanged"}),
            ("indices are zero", 0, {"lookup.indices-unchanged"}),
            ("guards are overwritten", 1, {"lookup.weight-unchanged", "lookup.indices-unchanged"}),
            ("raised", 0, {"lookup.rows"}),
            ("raised", 1, {"gradient.sum"}),
        ],
    )
    def test_on_a_plain_call(self, kind: str, step: int, clauses: set[str]) -> None:
        outcome = observe(EAGER, PLAIN)
        assert not broken(PLAIN, outcome)
        assert broken(PLAIN, damaged(outcome, step, kind)) == clauses

    @pytest.mark.parametrize(
        ("max_norm", "clauses"),
        [
            (None, {"lookup.weight-unchanged", "lookup.indices-unchanged"}),
            (0.5, {"max-norm.only-looked-up-rows", "lookup.indices-unchanged"}),
        ],
    )
    def test_memory_is_overwritten_in_one_step(
        self, max_norm: float | None, clauses: set[str]
    ) -> None:
        case = replace(PLAIN, options=Options(max_norm=max_norm))
        outcome = observe(EAGER, case)
        for step in range(len(outcome.steps)):
            outcome = damaged(outcome, step, "guards are overwritten")
        found = [ruling for ruling in rulings(case, outcome) if ruling.finding]
        assert {ruling.clause for ruling in found} == clauses
        assert {ruling.finding.step for ruling in found if ruling.finding} == {0}

    def test_only_the_clauses_that_are_wanted(self) -> None:
        wrong = damaged(observe(EAGER, PLAIN), 0, "output is NaN")
        found = list(rule(PLAIN, wrong, frozenset({"lookup.rows", "lookup.dtype"})))
        assert [(r.clause, r.finding is None) for r in found] == [
            ("lookup.dtype", True),
            ("lookup.rows", False),
        ]

    def test_a_finding_knows_its_numbers(self) -> None:
        outcome = observe(EAGER, PLAIN)
        seen = outcome.steps[1].gradient
        assert seen
        assert seen.dense is not None
        wrong = seen.dense.copy()
        wrong[2, 1] += 0.5
        step = replace(outcome.steps[1], gradient=replace(seen, dense=wrong))
        (ruling,) = [
            r for r in rulings(PLAIN, replace(outcome, steps=(outcome.steps[0], step))) if r.finding
        ]
        finding = ruling.finding
        assert finding
        assert (finding.got, finding.exact, finding.bound, finding.step) == ("2.5", "2.0", "0", 1)
        assert finding.ulp == 0.5 / 2**-22
        assert finding.message.startswith("weight.grad[2, 1] is 2.5, must be 2.0")
