"""Gradients that several calls, or an infinity, add up to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embconform.backends.adapt import as_backend
from embconform.backends.eager import BACKEND as EAGER
from embconform.conformance.cases.case import Backward, Call, Case, Placed
from embconform.conformance.judging import rule
from embconform.conformance.observe import observe
from embconform.mutants.registry import by_name
from embconform.reference.clause import Profile
from embconform.reference.oracle import Options


def case_of(
    indices: tuple[list[int], ...], upstream: tuple[list[float], ...], *, sparse: bool = False
) -> Case:
    """Calls of one column, back-propagated through at once, in float64."""
    calls = tuple(Call(Placed(np.array(each))) for each in indices)
    sent = tuple(Placed(np.array(each)[:, None]) for each in upstream)
    return Case(
        stratum="written by hand",
        profile=Profile.TORCH,
        weight=Placed(np.array([[0.125], [-0.25], [0.5]])),
        options=Options(sparse=sparse),
        mode="grad",
        entry="functional",
        steps=(*calls, Backward(tuple(range(len(calls))), sent)),
    )


def broken(case: Case, name: str = "") -> set[str]:
    backend = EAGER if not name else as_backend(name, by_name()[name, "torch"].target)
    return {ruling.clause for ruling in rule(case, observe(backend, case)) if ruling.finding}


TERMS = ([0.0603106297, -0.0382535432], [-0.4397743975, 0.4461616748])
"""Of one row: torch adds them call by call, or entry by entry where the gradient is sparse."""


@pytest.mark.parametrize("sparse", [False, True])
def test_terms_of_several_calls_are_added_in_any_order(sparse: bool) -> None:
    case = case_of(([1, 1], [1, 1]), TERMS, sparse=sparse)
    observed = observe(EAGER, case)
    assert not [ruling for ruling in rule(case, observed) if ruling.finding]


def test_the_order_shows() -> None:
    first, second = (torch.tensor(each, dtype=torch.float64) for each in TERMS)
    assert first.sum() + second.sum() != (first + second).sum()


@pytest.mark.parametrize("sent", [[np.inf, 1.0], [1.0, -np.inf], [np.nan, 1.0], [np.inf, -np.inf]])
def test_what_is_no_number_reaches_its_row(sent: list[float]) -> None:
    assert not broken(case_of(([1, 1],), (sent,)))


@pytest.mark.parametrize("sent", [[np.inf, 1.0], [1.0, -np.inf]])
def test_an_infinity_that_becomes_nan(sent: list[float]) -> None:
    assert broken(case_of(([1, 1],), (sent,)), "CompensatesInfinity") == {
        "gradient.nonfinite-upstream"
    }


def test_passes_may_add_up_to_more_than_there_is() -> None:
    ids, sent = Placed(np.array([1])), Placed(np.array([[30_000.0]], np.float16))
    steps = [step for k in (0, 2, 4, 6) for step in (Call(ids), Backward((k,), (sent,)))]
    table = Placed(np.array([[0.125], [-0.25]], np.float16))
    case = Case("written by hand", Profile.TORCH, table, Options(), "grad", "functional", (*steps,))
    outcome = observe(EAGER, case)
    last = outcome.steps[-1].gradient
    assert last is not None
    assert last.dense is not None
    assert np.isinf(last.dense[1, 0])
    assert not [ruling for ruling in rule(case, outcome) if ruling.finding]
