"""Judges of the sparse-gradient clauses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embconform.conformance.finding import Check, Finding, equal
from embconform.conformance.judges.padding import compare_gradient
from embconform.conformance.judging import judge
from embconform.conformance.views import BackwardView, CallView


def _sparse(view: BackwardView | CallView) -> bool:
    return view.options.sparse and not view.options.scale_grad_by_freq and view.width > 0


def _owner(view: BackwardView) -> str:
    """Name the one clause that judges the values in this case."""
    if view.prior is not None or len(view.calls) > 1:
        ranks = [call.step.indices.values.ndim for call in view.calls]
        return "accumulates" if all(ranks) else "scalar-index"
    return _owner_of_call(view.calls[0])


def _owner_of_call(call: CallView) -> str:
    if call.step.indices.values.ndim == 0:
        return "scalar-index"
    if not call.ids.size:
        return "empty"
    if call.many:
        return "many-indices"
    if call.padded.all():
        return "all-padding"
    return "equals-dense" if call.padding is None else "padding-excluded"


def _owned_by(clause: str) -> Callable[[BackwardView], bool]:
    return lambda view: _sparse(view) and _owner(view) == clause


def _raised_by(clause: str) -> Callable[[CallView], bool]:
    """Tell whether a call that raised, before there was a gradient to judge, is a clause's."""
    return lambda view: bool(view.seen.raised and _sparse(view) and _owner_of_call(view) == clause)


@judge("sparse.equals-dense", CallView, _raised_by("equals-dense"), value=True)
@judge("sparse.many-indices", CallView, _raised_by("many-indices"), value=True)
@judge("sparse.all-padding", CallView, _raised_by("all-padding"), value=True)
@judge("sparse.scalar-index", CallView, _raised_by("scalar-index"), value=True)
@judge("sparse.empty", CallView, _raised_by("empty"), value=True)
@judge("sparse.padding-excluded", CallView, _raised_by("padding-excluded"), value=True)
@judge(
    "sparse.scale-by-freq",
    CallView,
    lambda v: bool(v.seen.raised and v.options.sparse and v.options.scale_grad_by_freq),
    value=True,
    may_refuse=True,
)
def call_raised(view: CallView) -> Finding | None:
    """Never judge a call that returned."""
    del view
    return None


@judge("sparse.equals-dense", BackwardView, _owned_by("equals-dense"), value=True)
@judge("sparse.many-indices", BackwardView, _owned_by("many-indices"), value=True)
@judge("sparse.all-padding", BackwardView, _owned_by("all-padding"), value=True)
@judge("sparse.scalar-index", BackwardView, _owned_by("scalar-index"), value=True)
@judge("sparse.empty", BackwardView, _owned_by("empty"), value=True)
@judge("sparse.accumulates", BackwardView, _owned_by("accumulates"), value=True)
@judge("sparse.padding-excluded", BackwardView, _owned_by("padding-excluded"), value=True)
def entries_add_up(view: BackwardView) -> Finding | None:
    """Compare the sum of the entries with the dense gradient, over the whole table."""
    return compare_gradient(view, np.ones((1, 1), np.bool_), view.exact.bound)


@judge("sparse.layout", BackwardView, _sparse)
def layout(view: BackwardView) -> Finding | None:
    """Compare layout, shape, dtype, sparse dimensions, the entries' rows and their order."""
    seen = view.gradient
    if seen is None:
        return equal("type(weight.grad).__name__", "NoneType", "Tensor")
    finding = (
        equal("str(weight.grad.layout)", f"torch.{seen.layout}", "torch.sparse_coo")
        or equal("tuple(weight.grad.shape)", seen.shape, view.before.shape)
        or equal("str(weight.grad.dtype)", f"torch.{seen.dtype}", f"torch.{view.case.dtype}")
        or equal("weight.grad.sparse_dim()", seen.sparse_dim, 1)
    )
    if finding or seen.rows is None or not seen.rows.size:
        return finding
    if seen.coalesced and not bool((np.diff(seen.rows) > 0).all()):
        return equal("weight.grad.is_coalesced()", True, False)
    span = [int(seen.rows.min()), int(seen.rows.max())]
    if span[0] >= 0 and span[1] < len(view.before):
        return None
    return Finding(
        f"entries of weight.grad name rows {span[0]} to {span[1]} of a table of "
        f"{len(view.before)} rows",
        str(span),
        f"rows 0 to {len(view.before) - 1}",
        check=Check(f"bool((weight.grad._indices() < {len(view.before)}).all())", "equal", True),
    )


@judge("sparse.rows", BackwardView, lambda v: _sparse(v) and v.prior is None)
def rows_named(view: BackwardView) -> Finding | None:
    """Compare the rows that the entries name with those that are looked up."""
    seen = view.gradient
    if seen is None or seen.rows is None:
        return None
    looked_up = np.unique(np.concatenate([call.ids for call in view.calls]))
    named, wanted = np.unique(seen.rows), looked_up[looked_up != view.padding]
    missing, strange = np.setdiff1d(wanted, named), np.setdiff1d(named, looked_up)
    if not missing.size and not strange.size:
        return None
    row = int((missing if missing.size else strange)[0])
    number = "no entry" if missing.size else "an entry"
    which = "is looked up" if missing.size else "is not looked up"
    return Finding(
        f"weight.grad has {number} for row {row}, which {which}",
        str(named[:8].tolist()),
        str(wanted[:8].tolist()),
        check=Check(f"bool((weight.grad._indices() == {row}).any())", "equal", bool(missing.size)),
    )


def _scaled(view: BackwardView) -> bool:
    return view.options.sparse and view.options.scale_grad_by_freq and view.width > 0


@judge("sparse.scale-by-freq", BackwardView, _scaled, value=True, may_refuse=True)
def scale_by_freq(view: BackwardView) -> Finding | None:
    """Compare a scaled sparse gradient that was not refused."""
    return compare_gradient(view, np.ones((1, 1), np.bool_), view.exact.bound)
