"""Judges of the gradient clauses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embconform.conformance.finding import Check, Finding, equal, within
from embconform.conformance.judges.lookup import outside
from embconform.conformance.judges.padding import compare_gradient
from embconform.conformance.judging import judge
from embconform.conformance.views import (
    BackwardView,
    CallView,
    DoubleBackwardView,
    StaleBackwardView,
)


def _summed(view: BackwardView) -> bool:
    """Tell whether a dense gradient sums over indices, unscaled and with no max_norm in it."""
    return (
        not view.options.sparse
        and not view.options.scale_grad_by_freq
        and bool(view.named.any())
        and view.width > 0
        and (view.torch or not view.bounded)
    )


def _features(view: BackwardView) -> set[str]:
    """Name the clauses that judge the summed rows in this case; sum where nothing is special."""
    if view.subnormal:
        return {"subnormal-upstream"}
    call = view.calls[0]
    features = {
        "half-precision": view.half,
        "float64": view.form.name == "float64",
        "int32-indices": call.int32,
        "strided-weight": view.strided_weight,
        "strided-indices": any(c.strided_indices for c in view.calls),
        "strided-upstream": view.strided_upstream,
        "many-indices": view.many,
        "hot-rows": view.hot,
        "wide-rows": view.wide,
    }
    named = {name for name, present in features.items() if present}
    plain = view.padding is None and not view.bounded
    if not named and plain and view.prior is None and len(view.calls) == 1:
        return {"sum"}
    return named


def _owned_by(clause: str) -> Callable[[BackwardView], bool]:
    return lambda view: _summed(view) and clause in _features(view)


@judge("gradient.sum", BackwardView, _owned_by("sum"), value=True)
@judge("gradient.half-precision", BackwardView, _owned_by("half-precision"), value=True)
@judge("gradient.float64", BackwardView, _owned_by("float64"), value=True)
@judge("gradient.int32-indices", BackwardView, _owned_by("int32-indices"), value=True)
@judge("gradient.strided-weight", BackwardView, _owned_by("strided-weight"), value=True)
@judge("gradient.strided-indices", BackwardView, _owned_by("strided-indices"), value=True)
@judge("gradient.strided-upstream", BackwardView, _owned_by("strided-upstream"), value=True)
@judge("gradient.many-indices", BackwardView, _owned_by("many-indices"), value=True)
@judge("gradient.hot-rows", BackwardView, _owned_by("hot-rows"), value=True)
@judge("gradient.wide-rows", BackwardView, _owned_by("wide-rows"), value=True)
@judge("gradient.subnormal-upstream", BackwardView, _owned_by("subnormal-upstream"), value=True)
def summed_rows(view: BackwardView) -> Finding | None:
    """Compare the gradient of the rows that are looked up."""
    return compare_gradient(view, view.named[:, None], view.exact.bound)


def _several(view: BackwardView) -> str:
    """Name the clause that judges more than one pass, or more than one call in a pass."""
    if view.options.sparse or view.width == 0 or (view.bounded and not view.torch):
        return ""
    if len(view.calls) > 1:
        return "two-uses"
    if view.prior is None:
        return ""
    return "backward-twice" if view.step.calls == (0,) else "accumulates"


@judge("gradient.accumulates", BackwardView, lambda v: _several(v) == "accumulates", value=True)
@judge(
    "gradient.backward-twice", BackwardView, lambda v: _several(v) == "backward-twice", value=True
)
@judge("gradient.two-uses", BackwardView, lambda v: _several(v) == "two-uses", value=True)
def several_passes(view: BackwardView) -> Finding | None:
    """Compare the gradient of the whole table, padding and scale included."""
    return compare_gradient(view, np.ones((1, 1), np.bool_), view.exact.bound)


@judge(
    "gradient.changed-indices",
    StaleBackwardView,
    lambda v: v.width > 0 and (v.torch or not v.bounded),
    value=True,
    may_refuse=True,
)
def stale_backward(view: StaleBackwardView) -> Finding | None:
    """Compare with the gradient for the indices as they were at the call."""
    return compare_gradient(view, np.ones((1, 1), np.bool_), view.exact.bound)


@judge(
    "gradient.float32-accumulation",
    BackwardView,
    lambda v: (
        (_summed(v) or _scaled(v))
        and (v.half and not v.bounded and not v.subnormal)
        and bool((v.exact.counts > 1).any())
    ),
    value=True,
)
def float32_accumulation(view: BackwardView) -> Finding | None:
    """Compare with the error of accumulation in float32 and one rounding."""
    return compare_gradient(view, view.named[:, None], view.exact.bound_float32)


@judge(
    "gradient.zeros-elsewhere",
    BackwardView,
    lambda v: not v.options.sparse and v.width > 0 and not v.named.all(),
)
def zeros_elsewhere(view: BackwardView) -> Finding | None:
    """Compare the gradient of rows that are not looked up, but for the padding row."""
    if not view.readable:
        return None
    rows = ~view.named
    if view.padding is not None:
        rows[view.padding] = False
    return compare_gradient(view, rows[:, None], view.exact.bound)


@judge(
    "gradient.nonfinite-upstream",
    BackwardView,
    lambda v: v.width > 0 and bool((v.exact.special != 0).any()),
)
def nonfinite_upstream(view: BackwardView) -> Finding | None:
    """Compare the elements that an infinity or a NaN is added to."""
    if not view.readable:
        return None
    assert view.dense is not None
    exact, got = view.exact.special, view.dense
    wrong = (exact != 0) & (got != exact) & ~(np.isnan(exact) & np.isnan(got))
    if not wrong.any():
        return None
    row, column = (int(k) for k in np.argwhere(wrong)[0])
    seen, right = float(got[row, column]), float(exact[row, column])
    name = "weight.grad.to_dense()" if view.options.sparse else "weight.grad"
    place = f"{name}[{row}, {column}]"
    holds = f"bool(torch.isnan({place}))" if np.isnan(right) else f"float({place}) == {right!r}"
    return Finding(
        f"{place} is {seen}, must be {right}; {int(wrong.sum())} elements are wrong",
        str(seen),
        str(right),
        check=Check(holds.replace("inf", "float('inf')"), "equal", True),
    )


@judge("gradient.upstream-unchanged", BackwardView, lambda v: not v.seen.raised)
def upstream_unchanged(view: BackwardView) -> Finding | None:
    """Compare the upstream gradient before and after the pass."""
    for number, (kept, around) in enumerate(
        zip(view.seen.upstream_kept, view.seen.outside_upstream, strict=True)
    ):
        name = f"upstream{view.position}_{number}"
        if not kept:
            exact = view.step.upstream[number].values
            what = "the backward pass wrote to its upstream gradient"
            return Finding(what, "other bits", "as it was", check=Check(name, "bits", exact))
        if not around:
            return outside(name)
    return None


@judge("gradient.shape-and-dtype", BackwardView, lambda v: not v.options.sparse)
def shape_and_dtype(view: BackwardView) -> Finding | None:
    """Compare layout, shape and dtype."""
    seen = view.gradient
    if seen is None:
        return equal("type(weight.grad).__name__", "NoneType", "Tensor")
    return (
        equal("str(weight.grad.layout)", f"torch.{seen.layout}", "torch.strided")
        or equal("tuple(weight.grad.shape)", seen.shape, view.before.shape)
        or equal("str(weight.grad.dtype)", f"torch.{seen.dtype}", f"torch.{view.case.dtype}")
    )


def _no_sum(view: BackwardView) -> bool:
    return not view.options.sparse and (view.largest_call == 0 or view.width == 0)


@judge("gradient.empty", BackwardView, _no_sum, value=True)
def empty(view: BackwardView) -> Finding | None:
    """Compare a gradient that has nothing to sum."""
    return compare_gradient(view, np.ones((1, 1), np.bool_), view.exact.bound)


@judge("gradient.requires-grad", CallView, lambda v: v.readable)
def requires_grad(view: CallView) -> Finding | None:
    """Compare requires_grad of the output."""
    expected = (view.step.context or view.case.mode) == "grad"
    return equal(f"{view.name}.requires_grad", view.seen.requires_grad, expected)


def _scaled(view: BackwardView) -> bool:
    return (
        view.options.scale_grad_by_freq
        and not view.options.sparse
        and bool(view.named.any())
        and view.width > 0
    )


def _scale_owner(view: BackwardView) -> str:
    if view.many:
        return "many"
    if view.padding is not None:
        return "padding"
    return "nd" if view.calls[0].step.indices.values.ndim > 1 else ""


def _scale_owned_by(owner: str) -> Callable[[BackwardView], bool]:
    return lambda view: _scaled(view) and _scale_owner(view) == owner


@judge("gradient.scale-by-freq", BackwardView, _scale_owned_by(""), value=True)
@judge("gradient.scale-by-freq-nd", BackwardView, _scale_owned_by("nd"), value=True)
@judge("gradient.scale-by-freq-padding", BackwardView, _scale_owned_by("padding"), value=True)
@judge("gradient.scale-by-freq-many", BackwardView, _scale_owned_by("many"), value=True)
def scaled_rows(view: BackwardView) -> Finding | None:
    """Compare the gradient divided by the counts, the padding row's with it."""
    rows = view.named.copy()
    if view.padding is not None:
        rows[view.padding] = True
    return compare_gradient(view, rows[:, None], view.exact.bound)


def _second(view: DoubleBackwardView) -> Finding | None:
    seen = view.seen.gradient
    values, bound = view.exact
    if seen is None or seen.dense is None or seen.shape != values.shape:
        got = None if seen is None else seen.shape
        return equal("tuple(second.shape)", got, values.shape)
    return within("second", seen.dense, values, bound, np.ones(values.shape, np.bool_))


@judge(
    "gradient.double-backward",
    DoubleBackwardView,
    lambda v: not v.options.scale_grad_by_freq and (v.torch or not v.bounded),
    value=True,
)
@judge(
    "gradient.double-backward-scaled",
    DoubleBackwardView,
    lambda v: v.options.scale_grad_by_freq,
    value=True,
)
def second_derivative(view: DoubleBackwardView) -> Finding | None:
    """Compare the second derivative."""
    return _second(view)
