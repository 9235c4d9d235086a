"""Optimiser steps: the oracle is torch's formula, its bounds hold and are tight, bugs fall out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from embconform.backends.adapt import as_backend
from embconform.backends.backend import Backend
from embconform.backends.eager import BACKEND as EAGER
from embconform.backends.textbook import BACKEND as TEXTBOOK
from embconform.conformance.probes.optimisers import (
    OPTIMISER_PROBE,
    Stepper,
    judge_padding,
    judge_steps,
    observe_steps,
)
from embconform.mutants.kernel import Kernel
from embconform.mutants.module import Layer
from embconform.reference.clause import Profile
from embconform.reference.optimisers import (
    RECIPES,
    ROWS,
    Arithmetic,
    Recipe,
    exactly,
    make_plan,
    trajectory,
)
from embconform.right import RIGHT

BACKENDS = [
    EAGER,
    TEXTBOOK,
    as_backend("Kernel", Kernel()),
    as_backend("Layer", Layer),
    *(as_backend(target.__name__, target) for target in RIGHT),
]
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_right_embeddings_pass(backend: Backend, seed: int) -> None:
    rulings = OPTIMISER_PROBE.run(backend, backend.profiles[0], seed, "cpu")
    assert len(rulings) >= 6
    assert [ruling for ruling in rulings if ruling.finding] == []


def optimiser(recipe: Recipe, weight: Tensor) -> Any:
    """The class that users name."""
    options: dict[str, Any] = {"lr": recipe.rate}
    if recipe.kind == "SGD":
        return torch.optim.SGD([weight], momentum=recipe.momentum, **options)
    options["eps"] = recipe.eps
    if recipe.kind != "Adagrad":
        options["betas"] = recipe.betas
    if recipe.kind == "AdamW":
        options["weight_decay"] = recipe.decay
    return getattr(torch.optim, recipe.kind)([weight], **options)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@each_recipe
def test_functional_forms_are_what_the_classes_do(recipe: Recipe) -> None:
    plan = make_plan(0, padding=True)
    tables = []
    for by_class in (True, False):
        weight = torch.nn.Parameter(torch.tensor(plan.table).to(getattr(torch, recipe.dtype)))
        step = (optimiser if by_class else Stepper)(recipe, weight).step
        for ids, upstream in zip(plan.ids, plan.upstream, strict=True):
            weight.grad = None
            out = torch.nn.functional.embedding(torch.tensor(ids), weight, sparse=recipe.sparse)
            out.backward(torch.tensor(upstream).to(weight.dtype))
            step()
        tables.append(weight.detach())
    assert torch.equal(*tables)


@each_recipe
def test_oracle_is_the_formula(recipe: Recipe) -> None:
    """In float64, torch's own steps agree with the oracle to far more digits than float32 has."""
    recipe = replace(recipe, dtype="float64")
    plan = make_plan(3, padding=True)
    seen = observe_steps(EAGER, recipe, plan, "cpu", as_module=False)
    for exact, table in zip(trajectory(recipe, plan), seen.tables, strict=True):
        np.testing.assert_allclose(table, exact.value, rtol=0, atol=1e-14)
    assert judge_steps(recipe, plan, seen, Profile.TORCH) is None


@each_recipe
def test_bounds_are_near_the_unit_roundoff(recipe: Recipe) -> None:
    plan = make_plan(1, padding=True)
    unit = Arithmetic(recipe.dtype).unit
    for exact in trajectory(recipe, plan):
        assert (exact.error <= 32 * unit).all()


@each_recipe
def test_rows_that_nothing_moves_have_the_bound_zero(recipe: Recipe) -> None:
    plan = make_plan(1, padding=True)
    *_, last = trajectory(recipe, plan)
    still = [ROWS - 1, plan.padding]
    assert bool((last.error[still] == 0).all()) is (recipe.decay == 0)


@each_recipe
def test_a_lost_duplicate_is_outside_the_bound(recipe: Recipe) -> None:
    plan = make_plan(2, padding=False)
    less = plan.upstream.copy()
    less[0, 0, 0] = 0  # row 0 comes three times in the first step
    seen = observe_steps(EAGER, recipe, replace(plan, upstream=less), "cpu", as_module=False)
    finding = judge_steps(recipe, plan, seen, Profile.TORCH)
    assert finding is not None
    assert "weight" in finding.message


@each_recipe
def test_an_unmasked_padding_row_is_found(recipe: Recipe) -> None:
    plan = make_plan(2, padding=True)
    seen = observe_steps(EAGER, recipe, replace(plan, padding=None), "cpu", as_module=False)
    assert judge_steps(recipe, plan, seen, Profile.TORCH) is None
    assert judge_padding(recipe, plan, seen) is not None


def test_a_dense_gradient_where_a_sparse_one_is_due_says_so() -> None:
    def ignores_sparse(input: Tensor, weight: Tensor, sparse: bool = False) -> Tensor:  # noqa: A002
        return torch.nn.functional.embedding(input, weight)

    plan = make_plan(0, padding=False)
    seen = observe_steps(Backend("b", ignores_sparse), RECIPES[-1], plan, "cpu", as_module=False)
    assert seen.fault.startswith("step 1 needs a gradient of torch.sparse_coo")
    finding = judge_steps(RECIPES[-1], plan, seen, Profile.TORCH)
    assert finding is not None
    assert finding.message == f"{RECIPES[-1].name}: {seen.fault}"


@pytest.mark.parametrize("seed", range(20))
def test_running_bounds_hold(seed: int) -> None:
    """Each operation on float32 values errs by less than its bound says."""
    rng = np.random.default_rng(seed)
    arithmetic = Arithmetic("float32")
    a = rng.uniform(-2, 2, (50, 4)).astype(np.float32)
    b = rng.uniform(0.01, 2, (50, 4)).astype(np.float32)
    x, y = exactly(a.astype(np.float64)), exactly(b.astype(np.float64))
    computed = a * b - np.sqrt(b) / (a * a + b)
    exact = arithmetic.minus(
        arithmetic.times(x, y),
        arithmetic.over(arithmetic.root(y), arithmetic.plus(arithmetic.times(x, x), y)),
    )
    assert (np.abs(computed - exact.value) <= exact.error).all()
    average = np.float32(0.9) * a + np.float32(0.1) * b
    blended = arithmetic.blend(x, y, 0.9)
    assert (np.abs(average - blended.value) <= blended.error).all()
    other = a + np.float32(0.1) * (b - a)
    assert (np.abs(other - blended.value) <= blended.error).all()
