"""Judges of what one call leaves behind for the next."""

from __future__ import annotations

from dataclasses import replace

from embconform.conformance.cases.case import Backward, Call, ClearGradient
from embconform.conformance.finding import Check, Finding, equal, same_bits
from embconform.conformance.judging import judge
from embconform.conformance.views import BackwardView, CallView, unchanged


def _repeats(view: CallView) -> bool:
    earlier = view.step.reuse
    if view.follows != "repeat" or not view.readable or earlier is None:
        return False
    first, steps = view.case.steps[earlier], view.outcome.steps
    assert isinstance(first, Call)
    if not unchanged(first.indices.values, view.step.indices.values):
        return False
    table = steps[earlier - 1].memory.weight if earlier else view.case.weight.values
    return unchanged(view.before, table)


@judge("state.repeatable", CallView, _repeats)
def repeatable(view: CallView) -> Finding | None:
    """Compare the output with that of the call whose indices are passed again."""
    assert view.step.reuse is not None
    assert view.seen.output is not None
    first = view.outcome.steps[view.step.reuse].output
    if first is None:  # that call returned no tensor: lookup.shape says so
        return None
    second = view.seen.output
    differs = equal(f"tuple({view.name}.shape)", second.shape, first.shape) or equal(
        f"str({view.name}.dtype)", f"torch.{second.dtype}", f"torch.{first.dtype}"
    )
    if differs:
        return differs
    finding = same_bits(view.name, second.values, first.values)
    return finding and replace(finding, check=_equal(view.name, f"out{view.step.reuse}"))


def _repeats_gradient(view: BackwardView) -> bool:
    steps = view.case.steps
    again = len(view.calls) == 1 and view.calls[0].follows == "repeat"
    if view.width == 0 or not again or not isinstance(steps[1], Backward):
        return False
    cleared = sum(isinstance(step, ClearGradient) for step in steps[: view.position])
    alone = view.prior is None and cleared == 1 and isinstance(steps[2], ClearGradient)
    return alone and _same_pass(steps[1], view)


def _same_pass(first: Backward, view: BackwardView) -> bool:
    """Tell whether a pass is for the indices and the upstream gradient of the first."""
    call = view.case.steps[0]
    assert isinstance(call, Call)
    (here,), (once,), (now,) = view.calls, first.upstream, view.step.upstream
    return unchanged(call.indices.values, here.step.indices.values) and unchanged(
        once.values, now.values
    )


@judge(
    "state.repeatable-gradient",
    BackwardView,
    lambda v: _repeats_gradient(v) and not v.case.deterministic,
)
@judge(
    "gradient.deterministic",
    BackwardView,
    lambda v: _repeats_gradient(v) and v.case.deterministic,
)
def repeatable_gradient(view: BackwardView) -> Finding | None:
    """Compare the gradient with that of the first pass."""
    first, second = view.outcome.steps[1].gradient, view.gradient
    if first is None or second is None:
        return None
    for name, before, after in (
        ("weight.grad", first.dense, second.dense),
        ("weight.grad._values()", first.entries, second.entries),
    ):
        if before is None or after is None:
            continue
        if before.shape != after.shape or before.dtype != after.dtype:
            return equal(f"tuple({name}.shape)", after.shape, before.shape)
        finding = same_bits(name, after, before)
        check = _equal(name, name.replace("weight.grad", "first_grad"))
        return finding and replace(finding, check=check)
    return None


def _equal(first: str, second: str) -> Check:
    """Let a script compare two of its own tensors: another right order gives other bits."""
    return Check(f"torch.equal({first}, {second})", "equal", True)


def _last_step(view: CallView) -> bool:
    more = view.position + 1 < len(view.case.steps)
    gone = view.outcome.ruined or any(step.lost for step in view.outcome.steps)
    return view.readable and not view.empty and more and not gone


@judge("state.outputs-intact", CallView, _last_step)
def outputs_intact(view: CallView) -> Finding | None:
    """Compare the output as returned with the output after the last step."""
    final = view.outcome.final_outputs.get(view.position)
    assert view.seen.output is not None
    if final is None or final.shape != view.seen.output.shape:
        return equal(f"tuple({view.name}.shape)", None if final is None else final.shape, "kept")
    finding = same_bits(view.name, final, view.seen.output.values)
    return finding and replace(finding, step=len(view.case.steps) - 1)
