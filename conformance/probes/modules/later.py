"""Options that are set on a module after it was made, as a bound that is annealed."""

from __future__ import annotations

from typing import Any, Final

from embconform.conformance.probes.claims import Refused
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import PADDING, Claims, Subject, described, run

_CHANGES: Final[tuple[tuple[dict[str, Any], str, Any], ...]] = (
    ({}, "padding_idx", PADDING),
    ({"padding_idx": PADDING}, "padding_idx", None),
    ({"padding_idx": PADDING}, "padding_idx", 3),
    ({}, "max_norm", 1.0),
    ({"max_norm": 1.0}, "max_norm", None),
    ({"max_norm": 1.0}, "max_norm", 2.0),
    ({"max_norm": 1.5, "norm_type": 1.0}, "norm_type", 2.0),
    ({"max_norm": 1.5, "norm_type": 2.0}, "norm_type", float("inf")),
    ({}, "scale_grad_by_freq", True),
    ({"scale_grad_by_freq": True}, "scale_grad_by_freq", False),
    ({"padding_idx": PADDING}, "scale_grad_by_freq", True),
    ({}, "sparse", True),
    ({"sparse": True}, "sparse", False),
    ({"padding_idx": PADDING}, "sparse", True),
)
"""Options of the constructor, and then an attribute and its new value."""


def options_later(subject: Subject) -> Claims:
    """Set one attribute after the other, before and after calls, in train and eval mode."""
    seen = 0
    for place, (given, name, value) in enumerate(subject.few(_CHANGES)):
        if not {*given, name} <= subject.able:
            continue
        claim = _changed(subject, given, name, value, "eval" if place % 2 else "train")
        if claim is not None:
            seen += 1
            yield claim
    if not seen:
        yield Refused(f"{type(subject.make()).__name__} has no option as an attribute to be set")


def _changed(
    subject: Subject, given: dict[str, Any], name: str, value: Any, mode: str
) -> SameBehaviour | None:
    """Compare a module whose attribute was set with one that was made so.

    None where it has no such attribute, or one that can't be set: so nobody is misled.
    """
    ids, module = subject.ids(), subject.filled(**given).train(mode == "train")
    if not hasattr(module, name):
        return None
    if mode == "train":
        module(ids)  # something to remember the old value by
        module.weight.data.copy_(subject.values())
    try:
        setattr(module, name, value)
    except Exception:
        return None
    wanted = run(subject.filled(**{**given, name: value}), ids)
    which = f"a module in {mode} mode{described(given)}, its {name} set to {value} since,"
    return SameBehaviour(which, run(module, ids), wanted)
