"""Judges of the max_norm clauses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from embconform.conformance.finding import Check, Finding, same_bits, within
from embconform.conformance.judges.lookup import outside
from embconform.conformance.judges.padding import compare_gradient
from embconform.conformance.judging import judge
from embconform.conformance.views import BackwardView, CallView
from embconform.reference.dtypes import in_float64
from embconform.reference.oracle import EPSILON, p_norm

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


def _bounded(view: CallView) -> bool:
    return view.bounded and not view.empty and view.follows != "error"


def _returned(view: CallView, mask: Mask) -> Mask:
    """Leave out of a mask of indices what the textbook profile returns as zeros: padding."""
    return mask if view.torch else mask & ~view.padded


def _scaled(view: CallView) -> Mask:
    """Which indices give a row that max_norm changes or may change."""
    return _returned(view, ~view.limit.kept & ~view.limit.open)


def _owner(view: CallView) -> set[str]:
    """Name the clauses that judge scaled rows in this case; value where nothing is special."""
    owners = {
        "norm-type": view.options.norm_type != 2 and view.options.max_norm != 0,
        "zero-bound": view.options.max_norm == 0,
        "every-column": view.spiked and view.width > 1,
        "wide-rows": view.wide,
        "many-indices": view.many,
        "without-grad": view.case.mode != "grad",
        "strided-weight": view.strided_weight,
        "later-calls": view.follows not in ("nothing", "call"),
    }
    return {name for name, owns in owners.items() if owns} or {"value"}


def _owned_by(clause: str) -> Callable[[CallView], bool]:
    def applies(view: CallView) -> bool:
        return _bounded(view) and clause in _owner(view) and bool(_scaled(view).any())

    return applies


def _compare(view: CallView, which: Mask, bound: F64 | None = None) -> Finding | None:
    """Compare rows within a bound, by default that of a norm accumulated in the table's dtype."""
    bound = view.limit.bound if bound is None else bound
    shape = (*view.step.indices.values.shape, view.width)
    assert view.seen.output is not None
    where = np.broadcast_to(which[:, None], view.limit.values.shape)
    return within(
        view.name,
        view.seen.output.values,
        view.limit.values.reshape(shape),
        bound.reshape(shape),
        where.reshape(shape),
    )


@judge("max-norm.norm-type", CallView, _owned_by("norm-type"), value=True)
@judge("max-norm.zero-bound", CallView, _owned_by("zero-bound"), value=True)
@judge("max-norm.every-column", CallView, _owned_by("every-column"), value=True)
@judge("max-norm.wide-rows", CallView, _owned_by("wide-rows"), value=True)
@judge("max-norm.many-indices", CallView, _owned_by("many-indices"), value=True)
@judge("max-norm.later-calls", CallView, _owned_by("later-calls"), value=True)
def scaled_rows(view: CallView) -> Finding | None:
    """Compare every scaled row."""
    return _compare(view, _scaled(view))


@judge("max-norm.without-grad", CallView, _owned_by("without-grad"), value=True)
@judge("max-norm.strided-weight", CallView, _owned_by("strided-weight"), value=True)
def scaled_rows_and_table(view: CallView) -> Finding | None:
    """Compare every scaled row, and the table with it (torch)."""
    finding = _compare(view, _scaled(view))
    return finding or (_table_holds_output(view) if view.torch else None)


@judge(
    "errors.next-call-works",
    CallView,
    lambda v: v.follows == "error" and v.bounded and not v.empty,
    value=True,
)
def bounded_rows_after_an_error(view: CallView) -> Finding | None:
    """Compare every scaled row, then those that must keep their bits."""
    return _compare(view, _scaled(view)) or _same_copies(view, _must_keep(view))


def _unrepeated(view: CallView) -> Mask:
    mask = _scaled(view) & ~view.repeats
    return mask & ~view.padded if view.torch else mask


@judge(
    "max-norm.value",
    CallView,
    lambda v: _owned_by("value")(v) and bool(_unrepeated(v).any()),
    value=True,
)
def value(view: CallView) -> Finding | None:
    """Compare scaled rows that are looked up once and are not padding."""
    return _compare(view, _unrepeated(view))


@judge(
    "max-norm.once",
    CallView,
    lambda v: _bounded(v) and not v.many and bool((_scaled(v) & v.repeats).any()),
    value=True,
)
def once(view: CallView) -> Finding | None:
    """Compare scaled rows that are looked up more than once."""
    return _compare(view, _scaled(view) & view.repeats)


@judge(
    "max-norm.padding-row",
    CallView,
    lambda v: _bounded(v) and not v.many and bool((_scaled(v) & v.padded).any()),
    value=True,
)
def padding_row(view: CallView) -> Finding | None:
    """Compare the scaled padding row."""
    return _compare(view, _scaled(view) & view.padded)


def _epsilon_shows(view: CallView) -> Mask:
    """Which rows would be told apart from the same without the 1e-7."""
    assert view.options.max_norm is not None
    largest = np.abs(view.limit.values).max(axis=-1, initial=0.0)
    allowed = view.limit.bound.max(axis=-1, initial=0.0)
    with np.errstate(over="ignore"):  # infinity is more than any row has
        shows = largest * EPSILON > 4 * allowed * view.limit.norm
    return np.asarray(_scaled(view) & view.limit.over & shows)


@judge(
    "max-norm.epsilon",
    CallView,
    lambda v: (
        _bounded(v) and not v.many and v.options.max_norm != 0 and bool(_epsilon_shows(v).any())
    ),
    value=True,
)
def epsilon(view: CallView) -> Finding | None:
    """Compare rows of small norm."""
    return _compare(view, _epsilon_shows(view))


def _same_copies(view: CallView, which: Mask) -> Finding | None:
    shape = view.step.indices.values.shape
    expected = view.expected_copy.reshape((*shape, view.width))
    assert view.seen.output is not None
    return same_bits(view.name, view.seen.output.values, expected, which.reshape(shape))


def _must_keep(view: CallView) -> Mask:
    return _returned(view, view.limit.kept)


@judge(
    "max-norm.under-bound-keeps-bits",
    CallView,
    lambda v: _bounded(v) and bool(_must_keep(v).any()),
    value=True,
)
def under_bound(view: CallView) -> Finding | None:
    """Compare the rows that do not exceed the bound, bit for bit."""
    return _same_copies(view, _must_keep(view))


@judge(
    "max-norm.in-place",
    CallView,
    lambda v: _bounded(v) and v.readable and v.case.mode == "grad" and not v.strided_weight,
)
def in_place(view: CallView) -> Finding | None:
    """Compare the table after the call with the output."""
    return _table_holds_output(view)


def _table_holds_output(view: CallView) -> Finding | None:
    closed = np.ones(len(view.before), np.bool_)
    closed[view.ids[view.limit.open]] = False
    expected = view.seen.memory.weight.copy()
    expected[view.ids] = view.output
    finding = same_bits("weight", view.seen.memory.weight, expected, view.looked_up & closed)
    if finding is None or view.limit.open.any():
        return finding
    ids = f"ids{view.position if view.step.reuse is None else view.step.reuse}"
    # another right norm gives other bits: let a script compare its own table and output
    check = Check(f"torch.equal(weight[{ids}.long()], {view.name})", "equal", True)
    return replace(finding, check=check)


@judge("max-norm.only-looked-up-rows", CallView, lambda v: v.bounded and not v.empty)
def only_looked_up(view: CallView) -> Finding | None:
    """Compare the rows that are not looked up, and the memory around the table."""
    memory = view.seen.memory
    finding = same_bits("weight", memory.weight, view.before, ~view.looked_up)
    return finding if finding or view.outside_weight else outside("weight")


@judge("max-norm.table-untouched", CallView, lambda v: v.bounded and not v.empty)
def table_untouched(view: CallView) -> Finding | None:
    """Compare the table before and after the call."""
    return same_bits("weight", view.seen.memory.weight, view.before)


def _holds_nan(view: CallView) -> Mask:
    return np.asarray(np.isnan(view.expected_copy).any(axis=-1))


@judge(
    "max-norm.nan-rows",
    CallView,
    lambda v: _bounded(v) and bool(_holds_nan(v).any()),
    value=True,
)
def nan_rows(view: CallView) -> Finding | None:
    """Compare rows that hold a NaN, bit for bit."""
    return _same_copies(view, _holds_nan(view))


def _beyond_half(view: CallView) -> Mask:
    """Which indices give a row whose squares float32 holds, but not the dtype."""
    return _returned(view, view.limit.open & ~view.limit.open_float32)


@judge(
    "max-norm.half-range",
    CallView,
    lambda v: _bounded(v) and v.half and bool(_beyond_half(v).any()),
    value=True,
)
def half_range(view: CallView) -> Finding | None:
    """Compare rows whose norm the dtype holds, but not the norm's square."""
    return _compare(view, _beyond_half(view))


@judge(
    "max-norm.float32-accumulation",
    CallView,
    lambda v: _bounded(v) and v.half and bool(_scaled(v).any()),
    value=True,
)
def float32_accumulation(view: CallView) -> Finding | None:
    """Compare scaled rows with the error of a norm accumulated in float32."""
    return _compare(view, _scaled(view), view.limit.bound_float32)


def _overflowing(view: CallView) -> Mask:
    finite = np.isfinite(view.expected_copy).all(axis=-1)
    return _returned(view, view.limit.open_float32 & finite & (view.limit.norm > 1))


@judge(
    "max-norm.finite",
    CallView,
    lambda v: _bounded(v) and v.options.max_norm != 0 and bool(_overflowing(v).any()),
    value=True,
)
def finite(view: CallView) -> Finding | None:
    """Demand that rows whose norm overflows come out finite, bounded and not all 0."""
    assert view.options.max_norm is not None
    out = in_float64(view.output)
    norms, _ = p_norm(np.where(np.isfinite(out), out, 0.0), view.options.norm_type)
    slack = 1 + 2.0**-4
    good = np.isfinite(out).all(axis=-1) & (norms > 0) & (norms <= view.options.max_norm * slack)
    wrong = _overflowing(view) & ~good
    if not wrong.any():
        return None
    row = int(np.argmax(wrong))
    got = out[row, :4].tolist()
    place = f"{view.name}.reshape(-1, {view.width})[{row}]"
    return Finding(
        f"{place} is {got}, must be finite with a norm of {view.options.max_norm}",
        str(got),
        f"norm {view.options.max_norm}",
        check=Check(f"bool(torch.isfinite({place}).all() and {place}.any())", "equal", True),
    )


def _looked_up_under_bound(view: BackwardView) -> bool:
    return view.bounded and not view.options.sparse and bool(view.named.any()) and view.width > 0


@judge("max-norm.straight-through", BackwardView, _looked_up_under_bound, value=True)
@judge("max-norm.gradient-through-scale", BackwardView, _looked_up_under_bound, value=True)
def bounded_gradient(view: BackwardView) -> Finding | None:
    """Compare the gradient of the rows that are looked up, zero rows left to their own judge."""
    zero = ~(view.calls[0].before != 0).any(axis=-1) if not view.torch else np.zeros(1, np.bool_)
    return compare_gradient(view, (view.named & ~zero)[:, None], view.exact.bound)


def _zero_rows(view: BackwardView) -> Mask:
    return np.asarray(view.named & ~(view.calls[0].before != 0).any(axis=-1))


@judge(
    "max-norm.zero-row-gradient",
    BackwardView,
    lambda v: _looked_up_under_bound(v) and v.options.max_norm != 0 and bool(_zero_rows(v).any()),
    value=True,
)
def zero_row_gradient(view: BackwardView) -> Finding | None:
    """Compare the gradient of zero rows."""
    return compare_gradient(view, _zero_rows(view)[:, None], view.exact.bound)
