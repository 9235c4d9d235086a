"""Training on real text: 50 SGD steps of a skip-gram through the backend under test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embconform.backends.backend import Backend, Described
from embconform.conformance.finding import Finding
from embconform.conformance.judging import Ruling
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.registry import Probe
from embconform.reference.clause import Profile
from embconform.reference.skipgram import Floats, Plan, Trajectory, make_plan, oracle, upstream
from embconform.reference.text import python_documentation

NAMES: Final = ("input", "output")
PART: Final = 5
"""First and last steps are a fifth of all: 10 of 50."""

Lookup: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"


class _UnusableError(Exception):
    """What a backend returned can't be trained on; its message says why."""


@dataclass(frozen=True, slots=True)
class TrainingSeen:
    """What could be observed of a training run, as plain data.

    Attributes
    ----------
    tables : tuple of two ndarray of float32, shape (V, D), or None
        Input and output table after the last step; None where the run broke off.
    losses : ndarray of float64, shape (finished steps,)
    fault : str
        Why the run broke off: an exception's type and text, or what can't be trained on.
    """

    tables: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    losses: Floats
    fault: str = ""


def observe_training(backend: Backend, plan: Plan, device: str = "cpu") -> TrainingSeen:
    """Train two tables through a backend as a plan says.

    The update is ``weight.add_(gradient, alpha=-rate)``, which is all that
    :class:`torch.optim.SGD` does with these options; using the class itself costs 1.3 s, because
    its constructor imports torch.compile. The backend gets copies of the plan's data.

    Parameters
    ----------
    backend : Backend
        Called by its functional form, by its module form where it has no other. padding_idx=0 is
        given where the plan has padding; a plan for a backend without that option has none.
    plan : Plan
    device : str
        Where tables and indices are, by torch's name.

    Returns
    -------
    TrainingSeen
        An exception of the backend is recorded, not raised.
    """
    losses: list[float] = []
    taken = backend.capabilities.index_dtypes
    dtype: torch.dtype = torch.int64 if "int64" in taken else getattr(torch, taken[0])
    try:
        pairs = [_table(backend, plan, values, device) for values in plan.tables]
        with torch.enable_grad():
            for at in range(plan.steps):
                batch = [
                    torch.tensor(ids[at], device=device, dtype=dtype)
                    for ids in (plan.centres, plan.contexts, plan.negatives)
                ]
                losses.append(_step(pairs, batch, device))
                for (_, weight), values in zip(pairs, plan.tables, strict=True):
                    _descend(weight, plan.rate)
                    _refuse_changed(weight, values)
        first, second = (weight.detach().cpu().numpy().copy() for _, weight in pairs)
    except _UnusableError as error:
        return TrainingSeen(None, np.array(losses), str(error))
    except (Exception, SystemExit) as error:
        return TrainingSeen(None, np.array(losses), f"{type(error).__name__}: {error}".strip())
    return TrainingSeen((first, second), np.array(losses))


def _table(
    backend: Backend, plan: Plan, values: NDArray[np.float32], device: str
) -> tuple[Lookup, torch.Tensor]:
    """Make a trainable table; return how to look it up, and its weight."""
    options: dict[str, Any] = {"padding_idx": 0} if plan.padding else {}
    weight = torch.nn.Parameter(torch.tensor(values, device=device))
    functional = backend.functional
    if functional is not None:
        return lambda ids: functional(ids, weight, **options), weight
    if backend.module is None:
        raise _UnusableError("the backend has neither a functional nor a module form")
    module = backend.module(*values.shape, **options).to(device)
    module.weight = weight
    return module, weight


def _step(
    tables: list[tuple[Lookup, torch.Tensor]], batch: list[torch.Tensor], device: str
) -> float:
    """Run centres, contexts and negatives forward and backward; return the loss."""
    (inputs, weight), (outputs, _) = tables
    shapes = [tuple(ids.shape) for ids in batch]
    vectors = [table(ids) for table, ids in zip((inputs, outputs, outputs), batch, strict=True)]
    for found, shape in zip(vectors, shapes, strict=True):
        _refuse_unusable(found, (*shape, weight.shape[1]))
    u, v, n = (vector.detach().cpu().numpy() for vector in vectors)
    wanted = upstream(u, v, n)
    gradients = (wanted.centres, wanted.contexts, wanted.negatives)
    torch.autograd.backward(vectors, [torch.tensor(each, device=device) for each in gradients])
    return wanted.loss


def _refuse_unusable(found: object, expected: tuple[int, ...]) -> None:
    """Raise unless a lookup returned a differentiable float32 tensor of the right shape."""
    if not isinstance(found, torch.Tensor):
        raise _UnusableError(f"the lookup returned {type(found).__name__}, not a tensor")
    if tuple(found.shape) != expected or found.dtype != torch.float32:
        raise _UnusableError(
            f"the lookup returned {found.dtype} of shape {tuple(found.shape)}, "
            f"not torch.float32 of shape {expected}"
        )
    if not found.requires_grad:
        raise _UnusableError(
            "what the lookup returned does not require grad: nothing can be learnt"
        )


def _descend(weight: torch.Tensor, rate: float) -> None:
    """Take one SGD step and clear the gradient."""
    if weight.grad is None:
        raise _UnusableError("no gradient reached the table")
    with torch.no_grad():
        weight.add_(weight.grad, alpha=-rate)
    weight.grad = None


def _refuse_changed(weight: torch.Tensor, values: NDArray[np.float32]) -> None:
    """Raise unless a table has the shape and dtype that it began with."""
    if tuple(weight.shape) != values.shape or weight.dtype != torch.float32:
        raise _UnusableError(f"the table has become {weight.dtype} of shape {tuple(weight.shape)}")


def judge_training(
    plan: Plan, trajectory: Trajectory, seen: TrainingSeen
) -> dict[str, Finding | None]:
    """Judge a training run by each clause that applies to it.

    Parameters
    ----------
    plan : Plan
    trajectory : Trajectory
        The oracle's, for the profile that is judged.
    seen : TrainingSeen

    Returns
    -------
    dict of str to (Finding or None)
        By clause id; None where passed. ``training.padding-row-unmoved`` is absent where the plan
        has no padding. Where the run broke off only ``training.skip-gram`` is there, and failed.
    """
    if seen.tables is None:
        step = len(seen.losses) + 1
        message = f"training broke off in step {step} of {plan.steps}: {seen.fault}"
        return {"training.skip-gram": Finding(message)}
    verdicts = {"training.skip-gram": _judge_tables(plan, trajectory, seen, seen.tables)}
    if plan.padding:
        verdicts["training.padding-row-unmoved"] = _judge_padding(plan, seen.tables)
    verdicts["training.loss-falls"] = _judge_losses(trajectory, seen)
    return verdicts


def _judge_tables(
    plan: Plan, trajectory: Trajectory, seen: TrainingSeen, tables: tuple[NDArray[np.float32], ...]
) -> Finding | None:
    """Compare every row with the oracle's; the padding row has a clause of its own."""
    exact, limits = np.stack(trajectory.tables), np.stack(trajectory.bounds)
    got = np.stack(tables).astype(np.float64)
    with np.errstate(all="ignore"):
        errors = np.sqrt(((got - exact) ** 2).sum(axis=2))
        ratios = np.where(errors == 0, 0, errors / limits)
    outside = ~(errors <= limits)
    outside[:, 0] &= not plan.padding
    if not outside.any():
        return None
    ratios = np.where(np.isnan(ratios), np.inf, ratios)
    table, row = np.unravel_index(np.argmax(np.where(outside, ratios, -1)), ratios.shape)
    which = f"row {row} ({plan.words[row]!r}) of the {NAMES[table]} table"
    times = f"{ratios[table, row]:.3g} times its bound" if limits[table, row] else "bound 0"
    tail = f"; {outside.sum()} of {outside.size} rows are outside"
    late = _first_late(trajectory, seen)
    tail += "" if late is None else f"; the loss is off from step {late + 1} on"
    finding = _numeric(which, times, tail, (got[table, row], exact[table, row], limits[table, row]))
    return replace(finding, step=plan.steps - 1 if late is None else late)


def _numeric(which: str, times: str, tail: str, values: tuple[Floats, Floats, float]) -> Finding:
    """Word a row that is outside, by the column that is furthest off."""
    got, exact, limit = values
    errors = np.abs(got - exact)
    column = int(np.argmax(errors))
    ulp = float(errors[column] / np.spacing(np.abs(exact[column]).astype(np.float32)))
    off = float(np.sqrt((errors**2).sum()))
    return Finding(
        f"{which} is off by {off:.3g} (2-norm), {times}; column {column} is furthest{tail}",
        got=f"{got[column]:.9g}",
        exact=f"{exact[column]:.17g}",
        bound=f"{limit:.3g}",
        ulp=ulp if np.isfinite(ulp) else None,
    )


def _first_late(trajectory: Trajectory, seen: TrainingSeen) -> int | None:
    """Find the first step whose loss is outside its bound."""
    late = ~(np.abs(seen.losses - trajectory.losses) <= trajectory.loss_bounds)
    return int(np.argmax(late)) if late.any() else None


def _judge_padding(plan: Plan, tables: tuple[NDArray[np.float32], ...]) -> Finding | None:
    """Compare the padding rows bit by bit."""
    for name, before, after in zip(NAMES, plan.tables, tables, strict=True):
        moved = np.flatnonzero(before[0].view(np.int32) != after[0].view(np.int32))
        if len(moved) == 0:
            continue
        column = moved[0]
        was, now = before[0, column], after[0, column]
        return Finding(
            f"row 0 ({plan.words[0]!r}) of the {name} table moved: {len(moved)} of "
            f"{before.shape[1]} columns, column {column} first",
            got=f"{now:.9g}",
            exact=f"{was:.9g}",
            bound="0",
            ulp=float(np.abs(np.float64(now) - was) / np.spacing(np.abs(was))),
        )
    return None


def _judge_losses(trajectory: Trajectory, seen: TrainingSeen) -> Finding | None:
    """Compare the mean losses of the last and the first steps."""
    part = max(len(seen.losses) // PART, 1)
    first, last = seen.losses[:part].mean(), seen.losses[-part:].mean()
    if last < first:
        return None
    exact = trajectory.losses
    return Finding(
        f"the mean loss of the last {part} steps is not below that of the first {part}",
        got=f"{first:.6g} to {last:.6g}",
        exact=f"{exact[:part].mean():.6g} to {exact[-part:].mean():.6g}",
    )


def _plan(described: Described, seed: int) -> Plan:
    padding = "padding_idx" in described.capabilities.options
    return make_plan(python_documentation(), seed, padding=padding)


def _observe(backend: Backend, profile: Profile, seed: int, device: str) -> TrainingSeen | None:
    """Train on Python's documentation; None where the backend takes no float32."""
    del profile
    if "float32" not in backend.capabilities.dtypes:
        return None
    return observe_training(backend, _plan(backend, seed), device)


def _judge(
    seen: TrainingSeen | None, described: Described, profile: Profile, seed: int
) -> list[Ruling]:
    """Compare with the oracle's trajectory."""
    if seen is None:
        return []
    plan = _plan(described, seed)
    found = judge_training(plan, oracle(plan, profile), seen)
    return [Ruling(clause, finding) for clause, finding in found.items()]


TRAINING_PROBE: Final = Probe(
    "training",
    frozenset({"training.skip-gram", "training.padding-row-unmoved", "training.loss-falls"}),
    frozenset({"gradient"}),
    _observe,
    _judge,
)
