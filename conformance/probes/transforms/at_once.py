"""Programs in the quick budget: what of them can be had in tenths of a second.

Compiled by Dynamo alone, which gives the graph that it captured back as it is: a lookup that takes
another way where it is compiled takes it there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import judge_refusable
from embconform.conformance.probes.registry import Probe
from embconform.conformance.probes.transforms.claims import Bounded, Lookup, Rows
from embconform.conformance.probes.transforms.common import MAX_NORM, Check, Claims, Lab, Trial
from embconform.conformance.probes.transforms.programs import (
    FIRST,
    HEIGHT,
    WIDTH,
    Program,
    forms,
    made_of,
    observe_program,
    passed_back,
    scripted,
)
from embconform.conformance.recording import read
from embconform.reference.clause import Profile


def _lookup(lab: Lab, options: dict[str, Any]) -> Lookup:
    able = {name: value for name, value in options.items() if name in lab.able}
    table = np.abs(lab.table(HEIGHT, WIDTH))  # one-hot rows lose a -0
    return Lookup(FIRST, table, able, lab.profile)


def _compile(lab: Lab) -> Iterator[Trial]:
    for form in forms(lab):
        lookup = _lookup(lab, {"padding_idx": 1, "scale_grad_by_freq": True})
        yield partial(_compiled, lab, lookup, form)
        if "max_norm" in lab.able:
            lookup = _lookup(lab, {"padding_idx": 1, "max_norm": MAX_NORM})
            yield partial(_compiled, lab, lookup, form)


def _captured(function: Callable[..., Any]) -> Any:
    """Compile a function anew, whole, into the graph that is captured."""
    torch._dynamo.reset()

    def as_it_is(graph: Any, inputs: Any) -> Any:
        del inputs
        return graph.forward

    return torch.compile(function, fullgraph=True, backend=as_it_is)


def _compiled(lab: Lab, lookup: Lookup, form: str) -> Claims:
    made = made_of(lab, lookup, form)
    return _passed(lab, f"the compiled {form} for {lookup}", lookup, _captured(made), made.weight)


def _script(lab: Lab) -> Iterator[Trial]:
    for form in forms(lab):
        for name in ("scale_grad_by_freq", "sparse"):
            lookup = _lookup(lab, {"padding_idx": 1, name: True})
            yield partial(_scripted, lab, lookup, form)


def _scripted(lab: Lab, lookup: Lookup, form: str) -> Claims:
    program, weight = scripted(lab, lookup, form)
    return _passed(lab, f"the scripted {form} for {lookup}", lookup, program, weight)


def _passed(lab: Lab, what: str, lookup: Lookup, program: Program, weight: torch.Tensor) -> Claims:
    """See the output, the gradient, and the table where rows are beyond a bound."""
    out = program(lab.tensor(lookup.ids))
    bounded = "max_norm" in lookup.options
    if bounded:
        yield Bounded(what, read(out), read(weight), lookup)
    else:
        yield Rows(f"the output of {what}", read(out), lookup)
    if "gradient" in lab.able and not (bounded and lab.profile is Profile.TEXTBOOK):
        yield from passed_back(lab, what, lookup, out, weight)


def _probe(name: str, clause: str, check: Check) -> Probe:
    observe = partial(observe_program, (clause, check))
    only = frozenset({"quick"})
    return Probe(name, frozenset({clause}), frozenset(), observe, judge_refusable, budgets=only)


AT_ONCE_PROBES: Final = (
    _probe("compiled at once", "transforms.compile", _compile),
    _probe("scripted at once", "transforms.script", _script),
)
