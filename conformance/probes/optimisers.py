"""Three steps of torch's optimisers through the backend under test."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np

from embconform.backends.backend import Backend, Described
from embconform.conformance.finding import Finding, within
from embconform.conformance.judging import Ruling
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.outcome import raised_from
from embconform.conformance.probes.claims import compare_arrays
from embconform.conformance.probes.registry import Probe
from embconform.reference.clause import Profile, registry
from embconform.reference.dtypes import Array
from embconform.reference.optimisers import RECIPES, Plan, Recipe, make_plan, trajectory

Lookup: TypeAlias = "Callable[[torch.Tensor], Any]"

PADDING: Final = "training.padding-row-decays"
_CLAUSES: Final = {
    "SGD": "training.sgd-step",
    "Adagrad": "training.adagrad-step",
    "Adam": "training.adamw-step",
    "AdamW": "training.adamw-step",
    "SparseAdam": "training.sparse-adam-step",
}


def clause_of(recipe: Recipe) -> str:
    """Name the clause that a recipe serves.

    Parameters
    ----------
    recipe : Recipe

    Returns
    -------
    str
    """
    if recipe.sparse and recipe.kind != "SparseAdam":
        return "sparse.optimiser-steps"
    return _CLAUSES[recipe.kind]


class Stepper:
    """A fresh optimiser for one table.

    torch's own functional forms are called, which is what the step of the classes calls after
    looking up the state; the classes' constructor imports torch.compile, which takes 1.3 s.

    Parameters
    ----------
    recipe : Recipe
    weight : torch.Tensor
        The table.
    """

    def __init__(self, recipe: Recipe, weight: torch.Tensor) -> None:
        self.recipe, self.weight = recipe, weight
        self.steps = 0
        self.counter = torch.tensor(0.0)
        self.momentum: list[torch.Tensor | None] = [None]
        self.first, self.second = torch.zeros_like(weight), torch.zeros_like(weight)

    def step(self) -> None:
        """Move the table by its gradient."""
        gradient = self.weight.grad
        assert gradient is not None
        self.steps += 1
        common: dict[str, Any] = {"lr": self.recipe.rate, "maximize": False}
        forms = {
            "SGD": self._sgd,
            "Adagrad": self._adagrad,
            "SparseAdam": self._sparse_adam,
        }
        if self.recipe.kind != "SparseAdam":
            common |= {"foreach": False, "fused": False}
        with torch.no_grad():
            forms.get(self.recipe.kind, self._adam)(gradient, common)

    def _sgd(self, gradient: torch.Tensor, common: dict[str, Any]) -> None:
        from torch.optim.sgd import sgd

        common |= {"weight_decay": 0.0, "momentum": self.recipe.momentum}
        common |= {"dampening": 0.0, "nesterov": False}
        sgd([self.weight], [gradient], self.momentum, **common)

    def _adagrad(self, gradient: torch.Tensor, common: dict[str, Any]) -> None:
        from torch.optim.adagrad import adagrad

        common |= {"weight_decay": 0.0, "lr_decay": 0.0, "eps": self.recipe.eps}
        common |= {"has_sparse_grad": gradient.is_sparse}
        adagrad([self.weight], [gradient], [self.first], [self.counter], **common)

    def _adam(self, gradient: torch.Tensor, common: dict[str, Any]) -> None:
        from torch.optim.adam import adam
        from torch.optim.adamw import adamw

        common |= {"weight_decay": self.recipe.decay, "amsgrad": False, **self._betas()}
        form = adamw if self.recipe.kind == "AdamW" else adam
        moments = [self.first], [self.second]
        form([self.weight], [gradient], *moments, [], [self.counter], **common)

    def _sparse_adam(self, gradient: torch.Tensor, common: dict[str, Any]) -> None:
        from torch.optim._functional import sparse_adam

        common |= self._betas()
        moments = [self.first], [self.second]
        sparse_adam([self.weight], [gradient], *moments, [self.steps], **common)

    def _betas(self) -> dict[str, Any]:
        beta1, beta2 = self.recipe.betas
        return {"beta1": beta1, "beta2": beta2, "eps": self.recipe.eps}


@dataclass(frozen=True, slots=True)
class Seen:
    """What could be observed of a recipe's steps.

    Attributes
    ----------
    tables : list of ndarray
        After each step.
    outputs : list of ndarray
        What each step looked up.
    fault : str
        Why the steps broke off: what can't be trained with, or an exception's type and text.
    """

    tables: list[Array]
    outputs: list[Array]
    fault: str = ""


class _UnusableError(Exception):
    """What a backend gave can't be trained with; its message says why."""


def observe_steps(
    backend: Backend, recipe: Recipe, plan: Plan, device: str, *, as_module: bool
) -> Seen:
    """Take a recipe's steps through a backend.

    Parameters
    ----------
    backend : Backend
    recipe : Recipe
    plan : Plan
    device : str
    as_module : bool
        Whether to use its module form.

    Returns
    -------
    Seen
        An exception of the backend is recorded, not raised; so is that no gradient, or none of
        the right layout, reached the table.
    """
    seen = Seen([], [])
    try:
        _take_steps(seen, backend, recipe, plan, device, as_module=as_module)
    except _UnusableError as error:
        return replace(seen, fault=str(error))
    except (Exception, SystemExit) as error:
        return replace(seen, fault=f"raised {raised_from(error)}")
    return seen


def _take_steps(
    seen: Seen, backend: Backend, recipe: Recipe, plan: Plan, device: str, *, as_module: bool
) -> None:
    """Add what is seen to `seen`, step by step.

    After the first step the gradient is filled with zeros, after the second it is dropped: both
    of the ways of ``zero_grad``.
    """
    look_up, weight = _table(backend, recipe, plan, device, as_module)
    taken = backend.capabilities.index_dtypes
    dtype = torch.int64 if "int64" in taken else getattr(torch, taken[0])
    optimiser = Stepper(recipe, weight)
    for at in range(len(plan.ids)):
        if weight.grad is not None:
            weight.grad = None if at == 2 else weight.grad.zero_()
        output = look_up(torch.tensor(plan.ids[at], dtype=dtype, device=device))
        if not isinstance(output, torch.Tensor) or output.dtype != weight.dtype:
            raise _UnusableError(f"the lookup of step {at + 1} is no tensor of {weight.dtype}")
        seen.outputs.append(to_numpy(output))
        upstream = torch.tensor(plan.upstream[at], device=device).to(weight.dtype)
        torch.autograd.backward([output], [upstream])
        layout = torch.sparse_coo if recipe.sparse else torch.strided
        if weight.grad is None or weight.grad.layout is not layout:
            found = "no gradient" if weight.grad is None else f"one of {weight.grad.layout}"
            raise _UnusableError(f"step {at + 1} needs a gradient of {layout}, and {found} came")
        optimiser.step()
        seen.tables.append(to_numpy(weight))
        if seen.tables[-1].shape != plan.table.shape or seen.tables[-1].dtype != recipe.dtype:
            raise _UnusableError(f"step {at + 1} leaves a table of another shape or dtype")


def _table(
    backend: Backend, recipe: Recipe, plan: Plan, device: str, as_module: bool
) -> tuple[Lookup, torch.Tensor]:
    """Make the trainable table; return how to look it up, and itself."""
    options: dict[str, Any] = {} if plan.padding is None else {"padding_idx": plan.padding}
    if recipe.sparse:
        options["sparse"] = True
    dtype = getattr(torch, recipe.dtype)
    weight = torch.nn.Parameter(torch.tensor(plan.table, device=device).to(dtype))
    functional = backend.functional
    if functional is not None and not as_module:
        return lambda ids: functional(ids, weight, **options), weight
    assert backend.module is not None
    module = backend.module(*plan.table.shape, dtype=dtype, **options).to(device)
    module.weight = weight
    return module, weight


def judge_steps(recipe: Recipe, plan: Plan, seen: Seen, profile: Profile) -> Finding | None:
    """Compare every row but the padding row with the oracle's, and every lookup with the table.

    Parameters
    ----------
    recipe : Recipe
    plan : Plan
    seen : Seen
    profile : Profile

    Returns
    -------
    Finding or None
    """
    if seen.fault:
        return Finding(f"{recipe.name}: {seen.fault}", seen.fault)
    rows = np.arange(len(plan.table))
    counted = np.broadcast_to((rows != plan.padding)[:, np.newaxis], plan.table.shape)
    before = plan.table.astype(recipe.dtype)
    for at, (exact, table) in enumerate(zip(trajectory(recipe, plan), seen.tables, strict=True)):
        where = f"{recipe.name}, step {at + 1}:"
        wanted = before[plan.ids[at]]
        if profile is Profile.TEXTBOOK:
            wanted[plan.ids[at] == plan.padding] = 0
        finding = compare_arrays(f"{where} the output", seen.outputs[at], wanted) or within(
            f"{where} weight", table, exact.value, exact.error, counted
        )
        if finding:
            return replace(finding, check=None)
        before = table
    return None


def judge_padding(recipe: Recipe, plan: Plan, seen: Seen) -> Finding | None:
    """Compare the padding row with one that weight decay alone has moved.

    Parameters
    ----------
    recipe : Recipe
    plan : Plan
    seen : Seen

    Returns
    -------
    Finding or None
    """
    rows = np.arange(len(plan.table))
    counted = np.broadcast_to((rows == plan.padding)[:, np.newaxis], plan.table.shape)
    for at, (exact, table) in enumerate(zip(trajectory(recipe, plan), seen.tables, strict=True)):
        name = f"{recipe.name}, step {at + 1}: weight"
        finding = within(name, table, exact.value, exact.error, counted)
        if finding:
            return finding
    return None


def _forms(described: Described) -> list[bool]:
    """List the forms that are trained: the functional one, and as a module."""
    forms = [form == "module" for form in ("functional", "module") if form in described.forms]
    return forms[:1] if described.compiled else forms


def _recipes(described: Described, profile: Profile) -> Iterator[Recipe]:
    """List the recipes that the profile and the backend have."""
    for recipe in RECIPES:
        clause = registry()[clause_of(recipe)]
        able = recipe.dtype in described.capabilities.dtypes and clause.needs <= described.able
        if able and profile in clause.profiles:
            yield recipe


def _runs(described: Described, profile: Profile) -> list[tuple[Recipe, bool]]:
    """List the recipes by form, module or not."""
    forms = _forms(described)
    return [(recipe, form) for recipe in _recipes(described, profile) for form in forms]


def _plan(described: Described, seed: int) -> Plan:
    return make_plan(seed, padding="padding_idx" in described.able)


def _observe(backend: Backend, profile: Profile, seed: int, device: str) -> tuple[Seen, ...]:
    """Take every recipe's steps through every form that the backend has."""
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        return tuple(
            observe_steps(backend, recipe, _plan(backend, seed), device, as_module=as_module)
            for recipe, as_module in _runs(backend, profile)
        )


def _judge(
    observation: tuple[Seen, ...], described: Described, profile: Profile, seed: int
) -> list[Ruling]:
    """Rule on every recipe, and on the padding row where none broke off."""
    plan, rulings = _plan(described, seed), []
    for (recipe, _), seen in zip(_runs(described, profile), observation, strict=True):
        if plan.padding is not None and not seen.fault:
            rulings.append(Ruling(PADDING, judge_padding(recipe, plan, seen)))
        rulings.append(Ruling(clause_of(recipe), judge_steps(recipe, plan, seen, profile)))
    return rulings


OPTIMISER_PROBE: Final = Probe(
    "optimisers",
    frozenset({*map(clause_of, RECIPES), PADDING}),
    frozenset({"gradient"}),
    _observe,
    _judge,
)
