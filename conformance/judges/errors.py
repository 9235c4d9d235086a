"""Judges of the error clauses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embconform.conformance.finding import Check, Finding, equal, same_bits
from embconform.conformance.judges.lookup import outside
from embconform.conformance.judges.padding import must_raise
from embconform.conformance.judging import judge
from embconform.conformance.views import MANY, FaultView, unchanged

FAR = 2**31


def _features(view: FaultView) -> set[str]:
    """Name the clauses that judge an index out of range in this case."""
    if view.bad is None:
        return set()
    if view.bad < 0 and not view.torch:
        return {"negative-wraps"}
    features = {
        "far-away": abs(view.bad) > FAR,
        "any-position": view.step.indices.values.size >= MANY,
        "int32": view.step.indices.values.dtype == np.int32,
        "zero-width": view.width == 0,
        "empty-table": len(view.before) == 0,
        "with-max-norm": view.bounded,
        "with-padding": view.padding is not None,
        "without-grad": view.case.mode != "grad",
    }
    named = {name for name, present in features.items() if present}
    return named or {"negative" if view.bad < 0 else "too-large"}


def _owned_by(clause: str) -> Callable[[FaultView], bool]:
    return lambda view: clause in _features(view)


@judge("errors.too-large", FaultView, _owned_by("too-large"))
@judge("errors.negative", FaultView, _owned_by("negative"))
@judge("errors.negative-wraps", FaultView, _owned_by("negative-wraps"))
@judge("errors.far-away", FaultView, _owned_by("far-away"))
@judge("errors.any-position", FaultView, _owned_by("any-position"))
@judge("errors.int32", FaultView, _owned_by("int32"))
@judge("errors.zero-width", FaultView, _owned_by("zero-width"))
@judge("errors.empty-table", FaultView, _owned_by("empty-table"))
@judge("errors.with-max-norm", FaultView, _owned_by("with-max-norm"))
@judge("errors.with-padding", FaultView, _owned_by("with-padding"))
@judge("errors.without-grad", FaultView, _owned_by("without-grad"))
def out_of_range(view: FaultView) -> Finding | None:
    """Demand an exception."""
    return must_raise(view, f"index {view.bad} into a table of {len(view.before)} rows")


@judge(
    "errors.index-dtype",
    FaultView,
    lambda v: v.step.indices.values.dtype not in (np.int32, np.int64),
)
def index_dtype(view: FaultView) -> Finding | None:
    """Demand an exception."""
    return must_raise(view, f"indices of dtype {view.step.indices.values.dtype}")


@judge("errors.weight-rank", FaultView, lambda v: v.before.ndim != 2)
def weight_rank(view: FaultView) -> Finding | None:
    """Demand an exception."""
    return must_raise(view, f"a table of {view.before.ndim} dimensions")


def _ordinary(view: FaultView) -> bool:
    """Tell whether an index is out of range of a table that has elements, and was refused."""
    return (
        view.bad is not None
        and view.before.size > 0
        and view.seen.raised is not None
        and (view.torch or view.bad >= 0)
    )


@judge("errors.exception-type", FaultView, _ordinary)
def exception_type(view: FaultView) -> Finding | None:
    """Demand an IndexError."""
    assert view.seen.raised is not None
    if "IndexError" in view.seen.raised.bases:
        return None
    return equal("type(raised).__name__", view.seen.raised.type, "IndexError")


@judge("errors.names-the-index", FaultView, _ordinary)
def names_the_index(view: FaultView) -> Finding | None:
    """Look for the bad index in the message."""
    assert view.seen.raised is not None
    if str(view.bad) in view.seen.raised.message:
        return None
    return Finding(
        f"the message does not name index {view.bad}: {view.seen.raised}",
        str(view.seen.raised),
        f"a message with {view.bad} in it",
        check=Check(f"{str(view.bad)!r} in str(raised)", "equal", True),
    )


def _refused(view: FaultView) -> bool:
    """Tell whether a table was refused something, and can still be read."""
    return view.seen.raised is not None and view.before.ndim == 2 and not view.seen.ruined


@judge("errors.atomic", FaultView, _refused)
def atomic(view: FaultView) -> Finding | None:
    """Compare the table and the indices before and after a refused call."""
    memory = view.seen.memory
    finding = same_bits("weight", memory.weight, view.before)
    if finding or not view.outside_weight:
        return finding or outside("weight")
    ids = memory.indices.get(view.position)
    if ids is not None and not unchanged(ids, view.step.indices.values):
        return same_bits(f"ids{view.position}", ids, view.step.indices.values)
    return None
