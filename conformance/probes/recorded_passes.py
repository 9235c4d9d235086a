"""Backward passes that are recorded, and that go through one retained graph again and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.backends.backend import TABLE_DTYPES
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Must
from embconform.conformance.probes.trained import WIDTH, lookups, many, trained
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup, WideGradient
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read, read_dense
from embconform.reference.dtypes import Array

_CLAUSE: Final = "gradient.asked-for"
ROWS, TIMES = 40, 4
"""Rows that are looked up, each as often as a power of two says, so that no division rounds."""
MANY: Final = 1030
"""More indices than a block of 1,024 has."""
BEYOND: Final = np.float64(2.0**30)
"""What upstream gradients of float64 have besides small numbers: more bits than float32."""


def _asked_for(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        return  # no compiler sees a second pass, and each dtype costs seconds
    for lookup in (*lookups(lab, "scale_grad_by_freq"), *many(lab, MANY, "scale_grad_by_freq")):
        yield partial(_again, lab, lookup)
        if "sparse" in lab.able and not lookup.options and lookup.ids.ndim:
            yield partial(_again, lab, replace(lookup, options={"sparse": True}))
    if "double_backward" not in lab.able or lab.backend.functional is None:
        return
    ids = lab.draw.permutation(np.repeat(np.arange(ROWS), TIMES))
    for options in lab.choices(ids, ROWS + 2, "padding_idx", "scale_grad_by_freq"):
        for name in TABLE_DTYPES:
            if name in lab.backend.known_dtypes:
                lookup = Lookup(ids, lab.table(ROWS + 2, WIDTH), options, lab.profile)
                yield partial(_recorded, lab, lookup, name)


def _again(lab: Lab, lookup: Lookup) -> Claims:
    """Write to the upstream gradient's memory between two passes through a retained graph."""
    weight, f = trained(lab, lookup)
    out, given = f(lab.tensor(lookup.ids)), lab.tensor(lab.upstream(*lookup.shape))
    for number in ("first", "second", "third"):
        upstream = lab.upstream(*lookup.shape)
        given.copy_(lab.tensor(upstream))
        (got,) = torch.autograd.grad(out, weight, given, retain_graph=True)
        what = f"what the {number} pass through a retained graph gives for {lookup}"
        told = f"{what}, the upstream gradient written to before it"
        yield GradientOf(told, read_dense(got), lookup, upstream)


def _recorded(lab: Lab, lookup: Lookup, name: str) -> Claims:
    """Record the backward pass of a table of another dtype, for each kind of upstream gradient."""
    functional, dtype = lab.backend.functional, getattr(torch, name)
    assert functional is not None
    weight = lab.tensor(lookup.table).to(dtype).requires_grad_()
    for leaf in (False, True):
        upstream = _upstream(lab, lookup, name)
        given = lab.tensor(upstream).to(dtype).requires_grad_(leaf)
        out: Any = functional(lab.tensor(lookup.ids), weight, **lookup.options)
        (got,) = torch.autograd.grad(out, weight, given, create_graph=True)
        what = f"torch.autograd.grad(create_graph=True) for {lookup}, of {name}"
        yield WideGradient(what, read(got), lookup, upstream, name)
        told = f"{what}, does not require grad, though its upstream gradient does"
        yield Must(got.requires_grad or not leaf, told)


def _upstream(lab: Lab, lookup: Lookup, name: str) -> Array:
    """Draw numbers whose sums are exact in a dtype, and in float64 beyond float32."""
    small = lab.small(*lookup.shape).astype(np.float64)
    return small + BEYOND * lab.small(*lookup.shape) if name == "float64" else small


RECORDED_PASSES_PROBE: Final = probe_of(_CLAUSE, _asked_for, "gradient", name="recorded passes")
