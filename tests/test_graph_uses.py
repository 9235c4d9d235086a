"""Lookups amid other steps of a graph: what is right, what is refused, what each clause catches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sampling import bug_name, sampled
from torch import Tensor
from torch.nn import functional

from embconform.backends.adapt import as_backend
from embconform.backends.backend import Backend
from embconform.backends.eager import BACKEND as EAGER
from embconform.backends.textbook import BACKEND as TEXTBOOK
from embconform.conformance.probes.claims import Returned
from embconform.conformance.probes.graph_uses import GRAPH_PROBES
from embconform.conformance.probes.transforms.claims import Lookup, TiedGradient
from embconform.mutants.kernel import Kernel
from embconform.mutants.module import Layer
from embconform.mutants.registry import Planted, all_planted
from embconform.mutants.transforms_programs import HoldsItsParameter
from embconform.reference.clause import Profile, registry
from embconform.right import RIGHT

CLAUSES = {probe.name for probe in GRAPH_PROBES}
BUGS = [bug for bug in all_planted() if bug.clause in CLAUSES]


def asked_of(backend: Backend, profile: Profile) -> set[str]:
    """The clauses that speak of a backend, by the profile and by what it can."""
    clauses = (registry()[name] for name in CLAUSES)
    return {each.id for each in clauses if profile in each.profiles and each.needs <= backend.able}


def outcomes(target: Any, profile: str = "torch", seed: int = 0) -> tuple[set[str], set[str]]:
    """The clauses that a target breaks and those that it refuses at least once."""
    backend = as_backend("target", target)
    rulings = [
        ruling
        for probe in GRAPH_PROBES
        for ruling in probe.run(backend, Profile(profile), seed, "cpu")
    ]
    found = [(ruling.clause, ruling.finding) for ruling in rulings if ruling.finding]
    assert {ruling.clause for ruling in rulings} == asked_of(backend, Profile(profile))
    broken = {clause for clause, finding in found if not finding.refused}
    return broken, {clause for clause, finding in found if finding.refused}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("target", [EAGER, Kernel(), Layer], ids=["eager", "Kernel", "Layer"])
def test_right_ones_are_accepted_and_refuse_nothing(target: Any, seed: int) -> None:
    assert outcomes(target, seed=seed) == (set(), set())


def test_textbook_is_accepted_and_refuses_nothing() -> None:
    assert outcomes(TEXTBOOK, "textbook") == (set(), set())


@pytest.mark.parametrize("target", RIGHT, ids=lambda target: target.__name__)
def test_right_ones_may_refuse_writes(target: Any) -> None:
    broken, refused = outcomes(target)
    assert broken == set()
    assert refused <= {"gradient.output-written"}


@pytest.mark.parametrize("bug", sampled(BUGS, 4, bug_name))
def test_no_other_clause_catches_it(bug: Planted) -> None:
    assert outcomes(bug.target, bug.profile) == ({bug.clause}, set())


def test_a_target_that_always_saves_its_table_refuses_and_breaks_nothing() -> None:
    def by_take(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:  # noqa: A002
        columns = torch.arange(weight.shape[1])
        rows = functional.embedding(input, weight, padding_idx)
        if not weight.requires_grad:
            return rows
        flat = weight.take(input.unsqueeze(-1) * weight.shape[1] + columns)
        return rows + (flat - flat.detach()) * 0

    assert outcomes(by_take) == (set(), {"gradient.table-written"})


def test_a_module_that_keeps_its_table_is_given_none() -> None:
    assert outcomes(HoldsItsParameter) == (set(), {"gradient.non-leaf-table"})


def test_of_a_tied_padding_row_the_layer_part_is_wanted() -> None:
    table = np.ones((2, 1), np.float32)
    lookup = Lookup(np.array([0, 1]), table, {"padding_idx": 0}, Profile.TORCH)
    upstream = np.array([[2], [3]], np.float32)
    hidden, above = np.array([[5]], np.float32), np.array([[1, 1]], np.float32)

    def told(*values: float) -> bool:
        got = Returned("Tensor", "float32", (2, 1), np.array([values], np.float32).T)
        return TiedGradient("it", got, lookup, upstream, hidden, above).judge() is None

    assert told(5, 8)
    assert not told(0, 8)
    assert not told(7, 8)
