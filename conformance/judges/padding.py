"""Judges of the padding clauses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embconform.conformance.finding import Check, Finding, same_bits, within
from embconform.conformance.judging import judge
from embconform.conformance.views import BackwardView, CallView, FaultView, View


def _has_padded_output(view: CallView) -> bool:
    return not view.empty and bool(view.padded.any())


def _copied_padding(view: CallView) -> np.ndarray:
    """Which indices are padding and give a row that max_norm does not change."""
    if not view.bounded or not view.padded.any():
        return view.padded
    return np.asarray(view.padded & view.limit.kept)


@judge(
    "padding.row-returned",
    CallView,
    lambda v: bool(_copied_padding(v).any()) and not v.empty,
    value=True,
)
def row_returned(view: CallView) -> Finding | None:
    """Compare the output at padding_idx with the stored row."""
    shape = view.step.indices.values.shape
    assert view.seen.output is not None
    return same_bits(
        view.name,
        view.seen.output.values,
        view.expected_copy.reshape((*shape, view.width)),
        _copied_padding(view).reshape(shape),
    )


@judge(
    "padding.output-is-zero",
    CallView,
    lambda v: _has_padded_output(v) and v.options.max_norm != 0,
    value=True,
)
def output_is_zero(view: CallView) -> Finding | None:
    """Compare the output at padding_idx with 0."""
    assert view.seen.output is not None
    got = view.seen.output.values
    zeros = np.zeros(got.shape)
    where = view.padded.reshape((*view.step.indices.values.shape, 1))
    return within(view.name, got, zeros, zeros, np.broadcast_to(where, got.shape))


def _owner(view: BackwardView) -> str:
    """Name the one clause that judges the padding row's gradient in this case."""
    if view.many:
        return "many-indices"
    if not view.finite:
        return "nonfinite-upstream"
    if view.all_padding:
        return "all-padding"
    if (view.case.options.padding_idx or 0) < 0:
        return "negative"
    return "zero-is-an-index" if view.padding == 0 else "gradient-is-zero"


def _dense_padding(view: BackwardView) -> bool:
    return (
        view.padding is not None
        and not view.options.sparse
        and any(bool(call.padded.any()) for call in view.calls)
        and view.width > 0
        and (view.torch or view.options.max_norm != 0)
    )


def _owned_by(clause: str) -> Callable[[BackwardView], bool]:
    return lambda view: _dense_padding(view) and _owner(view) == clause


@judge("padding.gradient-is-zero", BackwardView, _owned_by("gradient-is-zero"), value=True)
@judge("padding.nonfinite-upstream", BackwardView, _owned_by("nonfinite-upstream"), value=True)
@judge("padding.zero-is-an-index", BackwardView, _owned_by("zero-is-an-index"), value=True)
@judge("padding.negative", BackwardView, _owned_by("negative"), value=True)
@judge("padding.all-padding", BackwardView, _owned_by("all-padding"), value=True)
@judge("padding.many-indices", BackwardView, _owned_by("many-indices"), value=True)
def padding_gradient(view: BackwardView) -> Finding | None:
    """Compare the padding row's gradient with 0, or with what was there before."""
    where = np.zeros(view.before.shape, np.bool_)
    where[view.padding] = True
    return compare_gradient(view, where, view.exact.bound)


@judge(
    "padding.other-rows",
    BackwardView,
    lambda v: (
        _dense_padding(v)
        and bool(v.named.any())
        and not (v.many or v.bounded or v.options.scale_grad_by_freq or v.half)
    ),
    value=True,
)
def other_rows(view: BackwardView) -> Finding | None:
    """Compare the gradient of the rows that are looked up and are not padding."""
    return compare_gradient(view, view.named[:, None], view.exact.bound)


def compare_gradient(view: BackwardView, where: np.ndarray, bound: np.ndarray) -> Finding | None:
    """Compare the observed gradient with the exact one, within a bound, where asked.

    Parameters
    ----------
    view : BackwardView
    where : ndarray of bool
        Broadcast against the table's shape.
    bound : ndarray of float64, shape (V, d)

    Returns
    -------
    Finding or None
    """
    assert view.dense is not None
    judged = np.broadcast_to(where, view.before.shape) & ~view.exact.open
    sparse = view.gradient is not None and view.gradient.layout == "sparse_coo"
    name = "weight.grad.to_dense()" if sparse else "weight.grad"
    if sparse:
        got = view.dense
    else:
        assert view.gradient is not None
        assert view.gradient.dense is not None
        got = view.gradient.dense
    return within(name, got, view.exact.values, bound, judged)


def _row_judged(view: View) -> bool:
    return view.padding is not None and not view.bounded and view.width > 0


@judge("padding.row-untouched", CallView, _row_judged)
def row_untouched(view: CallView) -> Finding | None:
    """Compare the stored padding row before and after a call."""
    return _padding_row_kept(view)


@judge("padding.row-untouched", BackwardView, _row_judged)
def row_untouched_by_backward(view: BackwardView) -> Finding | None:
    """Compare the stored padding row before and after a backward pass."""
    return _padding_row_kept(view)


def _padding_row_kept(view: View) -> Finding | None:
    rows = np.zeros(len(view.before), np.bool_)
    rows[view.padding] = True
    return same_bits("weight", view.seen.memory.weight, view.before, rows)


@judge(
    "padding.out-of-range",
    FaultView,
    lambda v: (
        v.bad is None
        and v.case.options.padding_idx is not None
        and v.before.ndim == 2
        and not -v.case.rows <= v.case.options.padding_idx < v.case.rows
    ),
)
def out_of_range(view: FaultView) -> Finding | None:
    """Demand an exception."""
    return must_raise(
        view, f"padding_idx={view.case.options.padding_idx} for {view.case.rows} rows"
    )


def must_raise(view: FaultView, what: str) -> Finding | None:
    """Report a call that was accepted.

    Parameters
    ----------
    view : FaultView
    what : str
        What is wrong with the call.

    Returns
    -------
    Finding or None
    """
    if view.seen.raised is not None:
        return None
    seen = view.seen.output
    got = f"returned {view.seen.returned}"
    if seen is not None:
        flat = seen.values.reshape(-1)[:6].tolist()
        got = (
            f"returned a tensor of shape {seen.shape}, {flat}{'…' if seen.values.size > 6 else ''}"
        )
    return Finding(f"{what}: {got}; must raise", got, "an exception", check=Check("", "raises"))
