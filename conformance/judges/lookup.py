"""Judges of the lookup clauses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embconform.conformance.finding import Check, Finding, equal, same_bits
from embconform.conformance.judging import judge
from embconform.conformance.outcome import MemorySeen
from embconform.conformance.views import (
    BackwardView,
    CallView,
    DoubleBackwardView,
    FaultView,
    View,
    unchanged,
)


@judge("lookup.shape", CallView, lambda v: not v.empty)
def shape(view: CallView) -> Finding | None:
    """Compare the output's shape."""
    return _shape(view)


def _shape(view: CallView) -> Finding | None:
    if view.seen.output is None:
        return equal(f"type({view.name}).__name__", view.seen.returned, "Tensor")
    expected = (*view.step.indices.values.shape, view.width)
    return equal(f"tuple({view.name}.shape)", view.seen.output.shape, expected)


@judge("lookup.dtype", CallView, lambda v: v.seen.output is not None)
def dtype(view: CallView) -> Finding | None:
    """Compare the output's dtype."""
    assert view.seen.output is not None
    return equal(
        f"str({view.name}.dtype)", f"torch.{view.seen.output.dtype}", f"torch.{view.case.dtype}"
    )


@judge("lookup.device", CallView, lambda v: v.seen.output is not None)
def device(view: CallView) -> Finding | None:
    """Compare the output's device with the table's."""
    assert view.seen.output is not None
    if not view.seen.output.apart:
        return None
    return equal(f"{view.name}.device == weight.device", False, True)


def _copies(view: CallView) -> bool:
    """Tell whether every index that is not padding gives a copy, in a call of its own."""
    return not view.bounded and view.follows in ("nothing", "call") and view.case.mode == "grad"


def _plain(view: CallView) -> bool:
    return _copies(view) and not (
        view.special
        or view.form.name != "float32"
        or view.int32
        or view.strided_weight
        or view.strided_indices
        or view.empty
        or view.many
        or view.wide
        or view.tall
    )


def _when(feature: str) -> Callable[[CallView], bool]:
    return lambda view: _copies(view) and not view.empty and bool(getattr(view, feature))


@judge("lookup.rows", CallView, _plain, value=True)
@judge("lookup.special-values", CallView, _when("special"), value=True)
@judge("lookup.half-precision", CallView, _when("half"), value=True)
@judge("lookup.int32-indices", CallView, _when("int32"), value=True)
@judge("lookup.strided-weight", CallView, _when("strided_weight"), value=True)
@judge("lookup.strided-indices", CallView, _when("strided_indices"), value=True)
@judge("lookup.many-indices", CallView, _when("many"), value=True)
@judge("lookup.wide-rows", CallView, _when("wide"), value=True)
@judge("lookup.tall-table", CallView, _when("tall"), value=True)
@judge(
    "lookup.float64", CallView, lambda v: _when("width")(v) and v.form.name == "float64", value=True
)
@judge(
    "lookup.sees-weight-updates",
    CallView,
    lambda v: v.follows == "weight-update" and not v.bounded,
    value=True,
)
@judge(
    "lookup.sees-index-updates",
    CallView,
    lambda v: v.follows == "index-update" and not v.bounded,
    value=True,
)
@judge(
    "errors.next-call-works",
    CallView,
    lambda v: v.follows == "error" and not v.bounded and not v.empty,
    value=True,
)
def copied_rows(view: CallView) -> Finding | None:
    """Compare the output with the rows of the table, bit for bit, padding left to its own judge."""
    expected = view.expected_copy.reshape((*view.step.indices.values.shape, view.width))
    assert view.seen.output is not None
    where = ~view.padded.reshape(view.step.indices.values.shape)
    return same_bits(view.name, view.seen.output.values, expected, where)


@judge(
    "gradient.frozen",
    CallView,
    lambda v: v.case.mode != "grad" and not v.bounded and v.follows == "nothing" and not v.empty,
    value=True,
)
def copied_rows_without_grad(view: CallView) -> Finding | None:
    """Compare every row, the padding row's too where the profile copies it."""
    shape = view.step.indices.values.shape
    expected = view.expected_copy.reshape((*shape, view.width))
    where = None if view.torch else ~view.padded.reshape(shape)
    assert view.seen.output is not None
    return same_bits(view.name, view.seen.output.values, expected, where)


@judge(
    "lookup.empty",
    CallView,
    lambda v: v.empty and v.follows in ("nothing", "call"),
    value=True,
)
def empty(view: CallView) -> Finding | None:
    """Compare the shape of an output without elements."""
    return _shape(view)


@judge("lookup.empty", CallView, lambda v: v.empty and not v.readable)
def empty_unreadable(view: CallView) -> Finding | None:
    """Compare the shape of an output without elements where it is wrong."""
    return _shape(view)


@judge("lookup.fresh-output", CallView, lambda v: v.readable and not v.empty)
def fresh_output(view: CallView) -> Finding | None:
    """Look for memory that the output shares."""
    if not view.seen.shares:
        return None
    if view.seen.shares[0] == "itself":
        steps = f"zip({view.name}.shape, {view.name}.stride())"
        expression = f"any(size > 1 and not step for size, step in {steps})"
        return Finding(
            f"rows of {view.name} share memory: nobody can write to it",
            "a stride of 0",
            "an element of its own for each value",
            check=Check(expression, "equal", False),
        )
    ids = f"ids{view.position if view.step.reuse is None else view.step.reuse}"
    others = [
        {"weight": "weight", "indices": ids}.get(name, f"out{name.rpartition(' ')[2]}")
        for name in view.seen.shares
    ]
    address = "untyped_storage().data_ptr()"
    expression = " or ".join(f"{view.name}.{address} == {other}.{address}" for other in others)
    return Finding(
        f"{view.name} shares memory with {', '.join(view.seen.shares)}",
        ", ".join(view.seen.shares),
        "fresh memory",
        check=Check(expression, "equal", False),
    )


def _previous_memory(view: View) -> dict[int, np.ndarray]:
    if view.position == 0:
        return {}
    return view.outcome.steps[view.position - 1].memory.indices


def _weight_kept(view: View) -> Finding | None:
    memory: MemorySeen = view.seen.memory
    finding = same_bits("weight", memory.weight, view.before, _not_padding(view))
    if finding is None and not view.outside_weight:
        return outside("weight")
    return finding


def _not_padding(view: View) -> np.ndarray | None:
    if view.padding is None:
        return None
    rows = np.ones(len(view.before), np.bool_)
    rows[view.padding] = False
    return rows


def outside(name: str) -> Finding:
    """Report memory around a view that was overwritten."""
    return Finding(
        f"memory around {name}, which is a view, was overwritten",
        "overwritten",
        "as it was",
        check=Check(f"outside_changed({name!r})", "equal", False),
    )


@judge("lookup.weight-unchanged", CallView, lambda v: not v.bounded and not v.empty)
def weight_unchanged(view: CallView) -> Finding | None:
    """Compare the table before and after a call."""
    return _weight_kept(view)


def _refused_unbounded(view: FaultView) -> bool:
    """Tell whether an index was refused without max_norm, and the table can still be read."""
    refused = view.bad is not None and view.seen.raised is not None
    return refused and not view.seen.ruined and not view.bounded


@judge("lookup.weight-unchanged", FaultView, _refused_unbounded)
def weight_unchanged_by_a_refused_call(view: FaultView) -> Finding | None:
    """Compare the table before and after a refused call."""
    return _weight_kept(view)


@judge("lookup.weight-unchanged", BackwardView, lambda _: True)
def weight_unchanged_by_backward(view: BackwardView) -> Finding | None:
    """Compare the table before and after a backward pass."""
    return _weight_kept(view)


@judge("lookup.weight-unchanged", DoubleBackwardView, lambda _: True)
def weight_unchanged_by_double_backward(view: DoubleBackwardView) -> Finding | None:
    """Compare the table before and after a double backward pass."""
    return _weight_kept(view)


@judge("lookup.indices-unchanged", CallView, lambda v: v.ids.size > 0)
def indices_unchanged(view: CallView) -> Finding | None:
    """Compare every index tensor before and after a call."""
    return _indices_kept(view)


@judge("lookup.indices-unchanged", BackwardView, lambda v: v.largest_call > 0)
def indices_unchanged_by_backward(view: BackwardView) -> Finding | None:
    """Compare every index tensor before and after a backward pass."""
    return _indices_kept(view)


def _indices_kept(view: View) -> Finding | None:
    earlier = _previous_memory(view)
    source = 0
    if isinstance(view, CallView):
        source = view.position if view.step.reuse is None else view.step.reuse
        earlier = {**earlier, source: view.step.indices.values}
    for call, before in earlier.items():
        after = view.seen.memory.indices[call]
        if not unchanged(before, after):
            return same_bits(f"ids{call}", after, before)
    return None if view.outside_indices else outside(f"ids{source}")
