"""A case and its outcome, step by step, as the judges look at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embconform.conformance.cases.case import (
    Backward,
    Call,
    Case,
    ClearGradient,
    DoubleBackward,
    WriteIndices,
    WriteWeight,
)
from embconform.conformance.outcome import GradientSeen, Outcome, StepSeen
from embconform.reference.bounds import relative
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, Format, bits, format_of, in_float64
from embconform.reference.gradients import Gradient, double_backward, gradient, segment_sums
from embconform.reference.oracle import Bounded, Options, bound_rows

MANY = 31
HOT = 5_000
TALL = 32_768


@dataclass(frozen=True, eq=False)
class View:
    """One step of a case, what it did, and the table before it."""

    case: Case
    outcome: Outcome
    position: int
    before: Array

    @cached_property
    def seen(self) -> StepSeen:
        """What the step did."""
        return self.outcome.steps[self.position]

    @cached_property
    def previous(self) -> StepSeen | None:
        """What the step before did; None at the first."""
        return self.outcome.steps[self.position - 1] if self.position else None

    @cached_property
    def after_loss(self) -> bool:
        """Whether an earlier step lost the device, so that nothing in its process can work."""
        return self.previous is not None and self.previous.ruined

    @cached_property
    def outside_weight(self) -> bool:
        """Whether this step left the memory around the table alone."""
        memory = self.seen.memory
        return memory.outside_weight or not (
            self.previous is None or self.previous.memory.outside_weight
        )

    @cached_property
    def outside_indices(self) -> bool:
        """Whether this step left the memory around the index tensors alone."""
        memory = self.seen.memory
        return memory.outside_indices or not (
            self.previous is None or self.previous.memory.outside_indices
        )

    @cached_property
    def readable(self) -> bool:
        """Whether what was seen has the shape that values can be compared in."""
        return True

    @cached_property
    def torch(self) -> bool:
        """Whether the profile is torch's."""
        return self.case.profile is Profile.TORCH

    @cached_property
    def options(self) -> Options:
        """The options, padding_idx not negative."""
        return self.case.options.normalised(self.case.rows)

    @cached_property
    def form(self) -> Format:
        """The table's dtype."""
        return format_of(self.case.dtype)

    @cached_property
    def padding(self) -> int | None:
        """The padding row."""
        return self.options.padding_idx

    @cached_property
    def bounded(self) -> bool:
        """Whether max_norm is set."""
        return self.options.max_norm is not None

    @cached_property
    def strided_weight(self) -> bool:
        """Whether the table is a view that is not contiguous, or lies off its base's start."""
        return self.case.weight.layout != "contiguous"

    @cached_property
    def half(self) -> bool:
        """Whether the table's dtype has 16 bits."""
        return self.form.dtype.itemsize == 2

    @cached_property
    def width(self) -> int:
        """embedding_dim."""
        return self.before.shape[-1] if self.before.ndim > 1 else 0

    @cached_property
    def wide(self) -> bool:
        """Whether the width lies where kernels switch."""
        return self.width >= MANY


@dataclass(frozen=True, eq=False)
class CallView(View):
    """A call that must work."""

    step: Call

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """The indices, flat."""
        return self.step.indices.values.reshape(-1).astype(np.int64)

    @cached_property
    def output(self) -> Array:
        """The output's values, one row an index."""
        assert self.seen.output is not None
        return self.seen.output.values.reshape(len(self.ids), self.width)

    @cached_property
    def name(self) -> str:
        """The output in a repro script."""
        return f"out{self.position}"

    @cached_property
    def readable(self) -> bool:
        """Whether there is an output of the right shape and dtype."""
        seen = self.seen.output
        return (
            seen is not None
            and seen.shape == (*self.step.indices.values.shape, self.width)
            and seen.values.dtype == self.form.dtype
        )

    @cached_property
    def padded(self) -> NDArray[np.bool_]:
        """Which indices are padding."""
        if self.padding is None:
            return np.zeros(self.ids.shape, np.bool_)
        return np.asarray(self.ids == self.padding)

    @cached_property
    def int32(self) -> bool:
        """Whether the indices are int32."""
        return self.step.indices.values.dtype == np.int32

    @cached_property
    def strided_indices(self) -> bool:
        """Whether the indices are a view."""
        return self.step.indices.layout != "contiguous"

    @cached_property
    def many(self) -> bool:
        """Whether the number of indices lies where kernels switch."""
        return len(self.ids) >= MANY

    @cached_property
    def tall(self) -> bool:
        """Whether the table has more rows than a 16-bit index can name."""
        return len(self.before) > TALL

    @cached_property
    def empty(self) -> bool:
        """Whether the output has no elements."""
        return self.ids.size == 0 or self.width == 0

    @cached_property
    def special(self) -> bool:
        """Whether the table holds signed zeros, subnormals, infinities or NaN."""
        wide = in_float64(self.before)
        with np.errstate(invalid="ignore"):
            odd = ~np.isfinite(wide) | (np.abs(wide) < self.form.smallest_normal)
        return bool(odd.any())

    @cached_property
    def follows(self) -> str:
        """What the step before did, for a call that is not the first."""
        if self.position == 0:
            return "nothing"
        before = self.case.steps[: self.position]
        if any(isinstance(step, Call) and step.must_raise for step in before):
            return "error"
        if self.step.reuse is None:
            return "call"
        previous = self.case.steps[self.position - 1]
        if isinstance(previous, WriteWeight) and unchanged(
            previous.values, self.case.weight.values
        ):
            return "repeat"
        return {WriteWeight: "weight-update", WriteIndices: "index-update"}.get(
            type(previous), "repeat"
        )

    @cached_property
    def expected_copy(self) -> Array:
        """The rows of the table before the call, one an index."""
        return self.before[self.ids]

    @cached_property
    def limit(self) -> Bounded:
        """The looked-up rows under max_norm, one an index."""
        return bound_rows(self.expected_copy, self.options, self.case.profile, self.form)

    @cached_property
    def repeats(self) -> NDArray[np.bool_]:
        """Which indices occur more than once in the call."""
        _, inverse, counts = np.unique(self.ids, return_inverse=True, return_counts=True)
        return np.asarray(counts[inverse.reshape(-1)] > 1)

    @cached_property
    def spiked(self) -> bool:
        """Whether every row has at most one component that is not 0."""
        return self.width > 1 and bool(((self.before != 0).sum(axis=-1) <= 1).all())

    @cached_property
    def looked_up(self) -> NDArray[np.bool_]:
        """Which rows of the table are looked up."""
        rows = np.zeros(len(self.before), np.bool_)
        rows[self.ids] = True
        return rows


@dataclass(frozen=True, eq=False)
class FaultView(View):
    """A call that must be refused."""

    step: Call

    @cached_property
    def bad(self) -> int | None:
        """The first index that is out of range; None where something else is wrong."""
        values = self.step.indices.values
        if values.dtype not in (np.int32, np.int64) or self.before.ndim != 2:
            return None
        outside = values[(values < 0) | (values >= len(self.before))]
        return int(outside.reshape(-1)[0]) if outside.size else None


@dataclass(frozen=True, eq=False)
class BackwardView(View):
    """A backward pass, through one call or more."""

    step: Backward
    calls: tuple[CallView, ...]
    prior: GradientSeen | None

    @cached_property
    def gradient(self) -> GradientSeen | None:
        """The table's gradient after the pass."""
        return self.seen.gradient

    @cached_property
    def finite(self) -> bool:
        """Whether the upstream gradient is finite."""
        return all(np.isfinite(p.values.astype(np.float64)).all() for p in self.step.upstream)

    @cached_property
    def strided_upstream(self) -> bool:
        """Whether the upstream gradient is a view."""
        return any(placed.layout != "contiguous" for placed in self.step.upstream)

    @cached_property
    def subnormal(self) -> bool:
        """Whether the upstream gradient has subnormal elements."""
        sizes = [np.abs(placed.values.astype(np.float64)) for placed in self.step.upstream]
        return any(((size > 0) & (size < self.form.smallest_normal)).any() for size in sizes)

    @cached_property
    def largest_call(self) -> int:
        """The largest number of indices in a call of the graph."""
        return max(len(call.ids) for call in self.calls)

    @cached_property
    def many(self) -> bool:
        """Whether the number of indices lies where kernels switch."""
        return self.largest_call >= MANY

    @cached_property
    def hot(self) -> bool:
        """Whether thousands of indices are equal."""
        return self.largest_call >= HOT

    @cached_property
    def exact(self) -> Gradient:
        """The exact gradient after the pass: of each call, and what was there before."""
        parts = [
            gradient(
                call.before,
                call.ids,
                placed.values.reshape(len(call.ids), self.width),
                options=self.options,
                profile=self.case.profile,
                form=self.form,
            )
            for call, placed in zip(self.calls, self.step.upstream, strict=True)
        ]
        prior = None if self.prior is None else as_dense(self.prior)
        if prior is not None and prior.shape != self.before.shape:
            prior = None  # gradient.shape-and-dtype judges it
        if len(parts) == 1 and prior is None:
            return parts[0]
        return _added(parts, prior, self.form, self.prior)

    @cached_property
    def dense(self) -> NDArray[np.float64] | None:
        """The observed gradient, a sparse one summed in float64; None where it can't be read."""
        return None if self.gradient is None else as_dense(self.gradient)

    @cached_property
    def readable(self) -> bool:
        """Whether there is a gradient of the table's shape."""
        return self.dense is not None and self.dense.shape == self.before.shape

    @cached_property
    def named(self) -> NDArray[np.bool_]:
        """Which rows get a gradient, padding left out."""
        return np.asarray(self.exact.counts > 0)

    @cached_property
    def all_padding(self) -> bool:
        """Whether every index is padding, and there is one."""
        return all(bool(call.padded.all()) and call.ids.size > 0 for call in self.calls)


@dataclass(frozen=True, eq=False)
class StaleBackwardView(BackwardView):
    """A backward pass after the indices of its call were written to."""


@dataclass(frozen=True, eq=False)
class DoubleBackwardView(View):
    """A second derivative."""

    step: DoubleBackward
    call: CallView

    @cached_property
    def exact(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The exact second derivative and its bound, in the output's shape."""
        values, bound = double_backward(self.step.direction, self.call.ids, self.options, self.form)
        shape = self.step.upstream.values.shape
        return values.reshape(shape), bound.reshape(shape)


MANY_FRACTIONS: Final = 2.0**20
"""Up to that size a float64 has 32 bits after the point."""


def _added(
    parts: list[Gradient],
    prior: NDArray[np.float64] | None,
    form: Format,
    seen: GradientSeen | None,
) -> Gradient:
    """Add gradients, with the error of adding them in the table's dtype.

    A kernel may add the terms of several calls in any order (torch adds two sparse gradients entry
    by entry), so partial sums are as large as the terms' absolute values. The entries of a sparse
    gradient that is there may be added up only now, in that dtype.
    """
    values = sum((part.values for part in parts), np.zeros_like(parts[0].values))
    sizes = sum((part.magnitudes for part in parts), np.zeros_like(values))
    counts = np.sum([part.counts for part in parts], axis=0)
    terms, merges = counts[:, None], np.full((len(values), 1), len(parts) - 1)
    whole = np.logical_and.reduce([part.values == np.rint(part.values) for part in parts])
    if prior is not None:
        held, size = _held(prior, seen)
        # of several large entries that are no whole numbers the rounded sum may be one
        whole &= (prior == np.rint(prior)) & ((held <= 1) | (size < MANY_FRACTIONS))
        values, sizes = values + prior, sizes + size
        terms, merges = terms + held, merges + held
    own = sum((part.bound for part in parts), np.zeros_like(values))
    wide = sum((part.bound_float32 for part in parts), np.zeros_like(values))
    whole &= (own == 0) & (sizes <= 2.0**form.precision)
    summed = 4 * 2.0**-53 * sizes  # the sum above, in float64
    with np.errstate(invalid="ignore"):  # of an infinite gradient that was there
        any_order, by_call = (
            np.where(whole, 0.0, relative(additions, form.unit_roundoff) * (sizes + own) + summed)
            for additions in (np.maximum(terms - 1, 0), merges)
        )
    opened = np.logical_or.reduce([part.open for part in parts])
    opened = opened | ~(sizes <= form.largest / 2)  # as for the terms of one call
    with np.errstate(invalid="ignore"):  # infinities of both signs
        special = sum((part.special for part in parts), np.zeros_like(values))
        if prior is not None:
            special = special + np.where(np.isfinite(prior), 0.0, prior)
    return Gradient(values, own + any_order, wide + by_call, opened, counts, sizes, special)


def _held(
    prior: NDArray[np.float64], seen: GradientSeen | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the terms of a gradient that is there, by row, and sum their absolute values."""
    if seen is None or seen.rows is None:
        return np.ones((len(prior), 1), np.int64), np.abs(prior)
    assert seen.entries is not None
    size = as_dense(replace(seen, entries=np.abs(seen.entries)))
    assert size is not None
    return np.bincount(seen.rows, minlength=len(prior))[:, None], size


def as_dense(seen: GradientSeen) -> NDArray[np.float64] | None:
    """Read a gradient as a dense float64 array."""
    if seen.dense is not None:
        return seen.dense.astype(np.float64)
    if seen.rows is None or seen.entries is None or len(seen.shape) != 2:
        return None
    legal = (seen.rows >= 0) & (seen.rows < seen.shape[0])
    if not legal.all() or seen.entries.shape[1:] != seen.shape[1:]:
        return None
    return segment_sums(
        seen.rows.astype(np.int64),
        seen.entries.astype(np.float64),
        seen.shape[0],
        exact=seen.dtype == "float64",
    )


def views(case: Case, outcome: Outcome) -> Iterator[View]:
    """Yield what there is to judge, step by step.

    Parameters
    ----------
    case : Case
    outcome : Outcome

    Yields
    ------
    View
        Nothing for steps that only prepare.
    """
    before = case.weight.values
    calls: dict[int, CallView] = {}
    prior: GradientSeen | None = None
    for position, (step, seen) in enumerate(zip(case.steps, outcome.steps, strict=False)):
        match step:
            case Call(must_raise=True):
                yield FaultView(case, outcome, position, before, step)
            case Call():
                calls[position] = CallView(case, outcome, position, before, step)
                yield calls[position]
            case Backward():
                parts = tuple(calls[k] for k in step.calls)
                stale = isinstance(case.steps[position - 1], WriteIndices)
                kind = StaleBackwardView if stale else BackwardView
                yield kind(case, outcome, position, before, step, parts, prior)
                prior = seen.gradient
            case DoubleBackward():
                yield DoubleBackwardView(case, outcome, position, before, step, calls[step.call])
            case ClearGradient():
                prior = None
            case WriteWeight() | WriteIndices():
                pass
        before = seen.memory.weight


def unchanged(before: Array, after: Array) -> bool:
    """Tell whether two arrays of one shape and dtype have the same bits."""
    return before.shape == after.shape and bool(np.array_equal(bits(before), bits(after)))
