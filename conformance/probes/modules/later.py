"""Options that are set on a module after it was made, as a bound that is annealed."""

from __future__ import annotations

from typing import Any

from embconform.conformance.probes.claims import Refused
from embconform.conformance.probes.modules.changes import OPTIONS_SET, sets
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import (
    Claims,
    Subject,
    described,
    gradient_of,
    run,
    upstream_of,
)


def options_later(subject: Subject) -> Claims:
    """Set one attribute after the other, before and after calls, in train and eval mode."""
    seen = 0
    for place, (given, name, value) in enumerate(subject.few(OPTIONS_SET)):
        if not {*given, name} <= subject.able:
            continue
        claim = _changed(subject, given, name, value, "eval" if place % 2 else "train")
        if claim is not None:
            seen += 1
            yield claim
            if "gradient" in subject.able and not subject.backend.compiled:
                yield from _between(subject, given, name, value)
    if not seen:
        yield Refused(f"{type(subject.make()).__name__} has no option as an attribute to be set")


def _changed(
    subject: Subject, given: dict[str, Any], name: str, value: Any, mode: str
) -> SameBehaviour | None:
    """Compare a module whose attribute was set with one that was made so.

    None where it has no such attribute, or one that can't be set: so nobody is misled.
    """
    ids, module = subject.ids(), subject.filled(**given).train(mode == "train")
    if mode == "train":
        module(ids)  # something to remember the old value by
        module.weight.data.copy_(subject.values())
    if not sets(module, name, value):
        return None
    wanted = run(subject.filled(**{**given, name: value}), ids)
    which = f"a module in {mode} mode{described(given)}, its {name} set to {value} since,"
    return SameBehaviour(which, run(module, ids), wanted)


def _between(subject: Subject, given: dict[str, Any], name: str, value: Any) -> Claims:
    """Set an attribute between a call and its backward pass, with another call after it."""
    ids, module = subject.ids(), subject.filled(**given)
    before, after = given, {**given, name: value}
    outputs = {f"before {name} was set to {value}": (module(ids), before)}
    sets(module, name, value)
    outputs[f"after {name} was set to {value}"] = (module(ids), after)
    for when, (output, options) in outputs.items():
        module.weight.grad = None
        output.backward(upstream_of(output))
        seen, wanted = gradient_of(module), run(subject.filled(**options), ids)
        which = f"a call of a module{described(given)}, {when}, its backward pass being later,"
        yield SameBehaviour(which, seen, {key: wanted[key] for key in seen})
