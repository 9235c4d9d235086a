"""Three steps of an optimiser, exactly, and how far a right embedding may stray from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import fsum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embconform.reference.bounds import relative, summation
from embconform.reference.dtypes import format_of

Floats = NDArray[np.float64]

ROWS: Final = 9
WIDTH: Final = 4
STEPS: Final = 3
_ROLES: Final = (
    ((0, 1, 0, 2), (7, 0, 3, 1)),
    ((1, 4, 1, 7), (2, 1, 4, 5)),
    ((2, 6, 0, 6), (7, 7, 4, 6)),
)
"""Who is looked up in each step: role 7 is padding, 3 comes in the first step only, 0 pauses."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """An optimiser with its settings; names and defaults are those of torch.optim.

    Attributes
    ----------
    kind : str
        ``SGD``, ``Adagrad``, ``Adam``, ``AdamW`` or ``SparseAdam``.
    rate : float
    sparse : bool
        Whether the gradient is sparse.
    dtype : str
        Of the table.
    momentum, decay : float
        Of SGD, and the weight decay of AdamW.
    betas : tuple of two float
    eps : float
    """

    kind: str
    rate: float
    sparse: bool = False
    dtype: str = "float32"
    momentum: float = 0.0
    decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    @property
    def name(self) -> str:
        """As in a message."""
        extra = ", sparse" * self.sparse + f", momentum={self.momentum}" * (self.momentum > 0)
        return f"{self.kind}({self.dtype}{extra})"


RECIPES: Final = (
    Recipe("SGD", 0.125),
    Recipe("SGD", 0.125, dtype="float64"),
    Recipe("SGD", 0.125, momentum=0.5),
    Recipe("Adagrad", 0.5, eps=1e-10),
    Recipe("Adam", 0.125),
    Recipe("AdamW", 0.125, decay=0.0625),
    Recipe("SGD", 0.125, sparse=True),
    Recipe("Adagrad", 0.5, sparse=True, eps=1e-10),
    Recipe("SparseAdam", 0.125, sparse=True),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained, as plain data, the same for every optimiser and backend.

    Attributes
    ----------
    table : ndarray of float32, shape (V, D)
        Signed, none near 0. The last row is never looked up.
    ids : ndarray of int64, shape (steps, 2, 4)
    upstream : ndarray of float32, shape (steps, 2, 4, D)
        Equal ids have upstream gradients of one sign, column by column, so that no sum cancels
        and the bounds stay near the unit roundoff.
    padding : int or None
        The padding row.
    """

    table: NDArray[np.float32]
    ids: NDArray[np.int64]
    upstream: NDArray[np.float32]
    padding: int | None


def make_plan(seed: int, *, padding: bool) -> Plan:
    """Draw a plan.

    Parameters
    ----------
    seed : int
    padding : bool
        Whether one of the rows that are looked up is the padding row.

    Returns
    -------
    Plan
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(ROWS - 1)
    ids = rows[np.array(_ROLES)]
    signs = rng.choice([-1.0, 1.0], (ROWS, WIDTH))
    table = rng.uniform(0.5, 1, (ROWS, WIDTH)) * rng.choice([-1.0, 1.0], (ROWS, WIDTH))
    upstream = rng.uniform(0.5, 2, (*ids.shape, WIDTH)) * signs[ids]
    return Plan(
        table.astype(np.float32),
        ids.astype(np.int64),
        upstream.astype(np.float32),
        int(rows[7]) if padding else None,
    )


@dataclass(frozen=True, slots=True)
class Running:
    """Exact values, and a bound on the error of the computed ones."""

    value: Floats
    error: Floats

    @property
    def reach(self) -> Floats:
        """The largest magnitude that the computed value can have."""
        return np.asarray(np.abs(self.value) + self.error)


def exactly(value: Floats | float) -> Running:
    """Take a value that is computed without error."""
    array = np.asarray(value, np.float64)
    return Running(array, np.zeros_like(array))


class Arithmetic:
    """Running error analysis: each operation bounds the error of its result, rounding included.

    The unit roundoff is the dtype's plus float64's own, because the exact values are themselves
    computed in float64 by the same operations. An operation that underflows loses at most the
    smallest normal number, flushed to zero or not. Zero that is exact stays exact, so that a row
    without gradient has the bound 0.

    Parameters
    ----------
    dtype : str

    References
    ----------
    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.3.
    """

    def __init__(self, dtype: str) -> None:
        form = format_of(dtype)
        self.unit = form.unit_roundoff + 2.0**-53
        self.tiny = form.smallest_normal

    def rounded(self, value: Floats, error: Floats, roundings: int = 1) -> Running:
        """Add what some roundings lose."""
        lost = relative(roundings, self.unit) * (np.abs(value) + error) + roundings * self.tiny
        return Running(value, np.where((value == 0) & (error == 0), 0.0, error + lost))

    def scalar(self, value: float) -> Running:
        """Round a Python number to the dtype."""
        given = exactly(value)
        return self.rounded(given.value, given.error)

    def times(self, a: Running, b: Running) -> Running:
        """Multiply."""
        error = np.abs(a.value) * b.error + np.abs(b.value) * a.error + a.error * b.error
        return self.rounded(a.value * b.value, error)

    def plus(self, a: Running, b: Running) -> Running:
        """Add; what is exactly 0 changes nothing."""
        total = self.rounded(a.value + b.value, a.error + b.error)
        none = (b.value == 0) & (b.error == 0)
        return Running(total.value, np.where(none, a.error, total.error))

    def minus(self, a: Running, b: Running) -> Running:
        """Subtract."""
        return self.plus(a, Running(-b.value, b.error))

    def over(self, a: Running, b: Running) -> Running:
        """Divide by what is positive for certain."""
        with np.errstate(invalid="ignore", divide="ignore"):
            quotient = a.value / b.value
            error = (a.error + np.abs(quotient) * b.error) / (b.value - b.error)
        error = np.where(b.value > b.error, error, np.inf)
        return self.rounded(quotient, np.where((a.value == 0) & (a.error == 0), 0.0, error))

    def root(self, a: Running) -> Running:
        """Take the square root of what is not negative: |√x - √a| <= |x - a| / (√x + √a)."""
        value = np.sqrt(a.value)
        below = np.sqrt(np.maximum(a.value - a.error, 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.where(below > 0, a.error / (value + below), np.sqrt(a.error))
        return self.rounded(value, error)

    def blend(self, old: Running, new: Running, beta: float) -> Running:
        """Average exponentially: beta old + (1 - beta) new, or old + (1 - beta)(new - old).

        In both forms no term suffers more than four roundings: of 1 - beta, of the difference, of
        the product, of the sum.
        """
        share = 1 - beta
        value = beta * old.value + share * new.value
        reach = (1 + share) * old.reach + share * new.reach
        error = beta * old.error + share * new.error + relative(4, self.unit) * reach
        error = np.where(reach == 0, 0.0, error + 4 * self.tiny)
        return Running(value, error)

    def where(self, mask: NDArray[np.bool_], a: Running, b: Running) -> Running:
        """Choose row by row."""
        column = mask[:, np.newaxis]
        return Running(np.where(column, a.value, b.value), np.where(column, a.error, b.error))


@dataclass(frozen=True, slots=True)
class _Gradient:
    """The gradient of step `number` (from 1), the terms of each row, and their magnitudes."""

    sums: Running
    counts: NDArray[np.int64]
    total: Floats
    number: int


@dataclass(slots=True)
class _State:
    """A table and what an optimiser remembers of it."""

    table: Running
    first: Running
    second: Running


def trajectory(recipe: Recipe, plan: Plan) -> Iterator[Running]:
    r"""Compute the table after each step, with a bound on the error of every element.

    The gradient of a row is the exactly rounded sum of its upstream gradients; summed in the
    table's dtype in any order it is off by at most (n - 1) u sum \|g_i\|
    (:func:`embconform.reference.bounds.summation`). From there each operation of the optimiser's
    documented formula adds its own rounding and passes the errors of its operands on
    (:class:`Arithmetic`): the division by √v + ε is where errors of a small √v would grow, and
    they do in the bound as well.

    Parameters
    ----------
    recipe : Recipe
    plan : Plan

    Yields
    ------
    Running
        Of shape (V, D).

    References
    ----------
    The algorithms in the documentation of torch.optim.SGD, Adagrad, Adam and AdamW; SparseAdam is
    Adam on the rows that were looked up, with ε beside the uncorrected √v.
    """
    arithmetic = Arithmetic(recipe.dtype)
    zeros = exactly(np.zeros(plan.table.shape))
    state = _State(exactly(plan.table.astype(np.float64)), zeros, zeros)
    step = {"SGD": _sgd, "Adagrad": _adagrad, "SparseAdam": _sparse_adam}.get(recipe.kind, _adam)
    if recipe.kind == "SGD" and recipe.sparse:
        step = _term_by_term
    for at in range(len(plan.ids)):
        step(recipe, state, _gradient(plan, at, arithmetic), arithmetic)
        yield state.table


def _gradient(plan: Plan, at: int, arithmetic: Arithmetic) -> _Gradient:
    """Sum the upstream gradients of each row; count them, and sum their magnitudes."""
    ids = plan.ids[at].reshape(-1)
    upstream = plan.upstream[at].reshape(ids.size, -1).astype(np.float64)
    if plan.padding is not None:
        upstream = upstream[ids != plan.padding]
        ids = ids[ids != plan.padding]
    rows, width = plan.table.shape
    counts = np.bincount(ids, minlength=rows)
    value, total = np.zeros((rows, width)), np.zeros((rows, width))
    for row in np.unique(ids):
        terms = upstream[ids == row]
        value[row] = [fsum(column) for column in terms.T]
        total[row] = np.abs(terms).sum(axis=0)
    error = summation(counts[:, np.newaxis], total, arithmetic.unit)
    return _Gradient(Running(value, error), counts, total, at + 1)


def _term_by_term(
    recipe: Recipe, state: _State, gradient: _Gradient, arithmetic: Arithmetic
) -> None:
    """Subtract sparse entries one by one: each term and the table suffer n + 1 roundings at most.

    torch adds an uncoalesced sparse gradient so, and a coalesced one has fewer terms.
    """
    counts = gradient.counts[:, np.newaxis]
    value = state.table.value - recipe.rate * gradient.sums.value
    reach = state.table.reach + recipe.rate * gradient.total
    lost = relative(counts + 1, arithmetic.unit) * reach + (counts + 1) * arithmetic.tiny
    state.table = Running(value, state.table.error + np.where(counts > 0, lost, 0.0))


def _sgd(recipe: Recipe, state: _State, gradient: _Gradient, arithmetic: Arithmetic) -> None:
    move = gradient.sums
    if recipe.momentum and gradient.number > 1:
        kept = arithmetic.times(arithmetic.scalar(recipe.momentum), state.first)
        move = arithmetic.plus(kept, move)
    state.first = move
    step = arithmetic.times(arithmetic.scalar(recipe.rate), move)
    state.table = arithmetic.minus(state.table, step)


def _adagrad(recipe: Recipe, state: _State, gradient: _Gradient, arithmetic: Arithmetic) -> None:
    state.second = arithmetic.plus(state.second, arithmetic.times(gradient.sums, gradient.sums))
    below = arithmetic.plus(arithmetic.root(state.second), arithmetic.scalar(recipe.eps))
    step = arithmetic.times(arithmetic.scalar(recipe.rate), arithmetic.over(gradient.sums, below))
    state.table = arithmetic.minus(state.table, step)


def _adam(recipe: Recipe, state: _State, gradient: _Gradient, arithmetic: Arithmetic) -> None:
    one, two = (1 - beta**gradient.number for beta in recipe.betas)
    if recipe.decay:
        shrink = arithmetic.scalar(1 - recipe.rate * recipe.decay)
        state.table = arithmetic.times(state.table, shrink)
    state.first = arithmetic.blend(state.first, gradient.sums, recipe.betas[0])
    square = arithmetic.times(gradient.sums, gradient.sums)
    state.second = arithmetic.blend(state.second, square, recipe.betas[1])
    below = arithmetic.over(arithmetic.root(state.second), arithmetic.scalar(two**0.5))
    below = arithmetic.plus(below, arithmetic.scalar(recipe.eps))
    step = arithmetic.times(
        arithmetic.scalar(recipe.rate / one), arithmetic.over(state.first, below)
    )
    state.table = arithmetic.minus(state.table, step)


def _sparse_adam(
    recipe: Recipe, state: _State, gradient: _Gradient, arithmetic: Arithmetic
) -> None:
    one, two = (1 - beta**gradient.number for beta in recipe.betas)
    touched = gradient.counts > 0
    first = arithmetic.blend(state.first, gradient.sums, recipe.betas[0])
    square = arithmetic.times(gradient.sums, gradient.sums)
    second = arithmetic.blend(state.second, square, recipe.betas[1])
    below = arithmetic.plus(arithmetic.root(second), arithmetic.scalar(recipe.eps))
    rate = arithmetic.scalar(recipe.rate * two**0.5 / one)
    moved = arithmetic.minus(state.table, arithmetic.times(rate, arithmetic.over(first, below)))
    state.first = arithmetic.where(touched, first, state.first)
    state.second = arithmetic.where(touched, second, state.second)
    state.table = arithmetic.where(touched, moved, state.table)
