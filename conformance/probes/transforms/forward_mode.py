"""Lookups and their gradients in forward mode: of torch.func, and of dual tensors without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.cases.case import GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context, to_numpy
from embconform.conformance.probes.claims import SameBits
from embconform.conformance.probes.transforms.claims import (
    Bounded,
    GradientOf,
    Lookup,
    Rows,
    Tangent,
)
from embconform.conformance.probes.transforms.common import MANY, Claims, Lab, Trial
from embconform.conformance.recording import read
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

FORWARD_MODES: Final[dict[GradMode, str]] = {"grad": "", "no_grad": ", under no_grad"}
"""Where forward mode is tried, in words: no_grad switches reverse mode off alone."""
_WAYS: Final[tuple[tuple[bool, GradMode], ...]] = (
    (False, "grad"),
    (True, "grad"),
    (True, "no_grad"),
)
"""Whether the table is trained, and where it is looked up."""


def forward_mode(lab: Lab) -> Iterator[Trial]:
    """Look up in tables that carry a tangent."""
    for lookup in lab.lookups("padding_idx", "scale_grad_by_freq"):
        for trained, mode in _WAYS:
            yield partial(_tangent, lab, lookup, trained, mode)
            yield partial(_tangent_of_dual, lab, lookup, trained, mode)
        if lookup.ids.size == MANY and "float64" in lab.backend.known_dtypes:
            wide = lookup.into(lab.table64(*lookup.table.shape))
            yield partial(_tangent, lab, wide, False, "grad")
            yield partial(_tangent_of_dual, lab, wide, False, "grad")
    if lab.profile is Profile.TORCH and "max_norm" in lab.able and not lab.backend.compiled:
        for lookup in lab.lookups("padding_idx", "max_norm"):
            if "max_norm" in lookup.options:
                large = lookup.into(lookup.table * np.float32(3))
                for trained, mode in _WAYS:
                    yield partial(_tangent_under_bound, lab, large, trained, mode)


def _direction(lab: Lab, lookup: Lookup) -> Array:
    made = lab.table if lookup.table.dtype == np.float32 else lab.table64
    return made(*lookup.table.shape)


def _tangent(lab: Lab, lookup: Lookup, trained: bool, mode: GradMode) -> Claims:
    f, direction = lab.bind(lookup), _direction(lab, lookup)
    weight = lab.tensor(lookup.table).requires_grad_(trained)
    with grad_context(mode):
        results: Any = torch.func.jvp(
            lambda w: f(lab.tensor(lookup.ids), w), (weight,), (lab.tensor(direction),)
        )
    out, tangent = results
    what = f"of jvp for {lookup}{FORWARD_MODES[mode]}"
    yield Rows(f"the primal output {what}", read(out), lookup)
    yield Tangent(f"the tangent {what}", read(tangent), lookup, direction)


@contextmanager
def _in_dual(
    lab: Lab, lookup: Lookup, direction: Array, trained: bool, mode: GradMode
) -> Iterator[tuple[Any, Any, tuple[Any, Any]]]:
    """Look up in a dual table; give output and tangent, and the table's values and tangent."""
    forward_ad: Any = torch.autograd.forward_ad  # not typed
    weight = lab.tensor(lookup.table).requires_grad_(trained)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weight, lab.tensor(direction))
        with grad_context(mode):
            out, tangent = forward_ad.unpack_dual(lab.bind(lookup)(lab.tensor(lookup.ids), dual))
            table = forward_ad.unpack_dual(dual)
        yield out, tangent, table


def _tangent_of_dual(lab: Lab, lookup: Lookup, trained: bool, mode: GradMode) -> Claims:
    """Look up in a dual tensor, without torch.func: the target sees it as a plain one."""
    direction, told = _direction(lab, lookup), f"of a dual table for {lookup}{FORWARD_MODES[mode]}"
    with _in_dual(lab, lookup, direction, trained, mode) as (out, tangent, _):
        yield Rows(f"the primal output {told}", read(out), lookup)
        yield Tangent(f"the tangent of the output {told}", read(tangent), lookup, direction)


def _tangent_under_bound(lab: Lab, lookup: Lookup, trained: bool, mode: GradMode) -> Claims:
    """Bound rows of a dual table: torch scales its values alone, as it does in reverse mode."""
    direction, told = _direction(lab, lookup), f"a dual table for {lookup}{FORWARD_MODES[mode]}"
    with _in_dual(lab, lookup, direction, trained, mode) as (out, tangent, (whole, kept)):
        yield Bounded(f"a call of {told}", read(out), read(whole), lookup)
        yield Tangent(f"the tangent of the output of {told}", read(tangent), lookup, direction)
        yield SameBits(f"the tangent, after the call, of {told}", to_numpy(kept), direction)


def forward_over_reverse(lab: Lab) -> Iterator[Trial]:
    """Go backward from upstream gradients that carry a tangent."""
    for lookup in lab.lookups("padding_idx", "scale_grad_by_freq"):
        yield partial(_tangent_of_gradient, lab, lookup)
        yield partial(_tangent_of_dual_upstream, lab, lookup)


def _tangent_of_gradient(lab: Lab, lookup: Lookup) -> Claims:
    f, ids, weight = lab.bind(lookup), lab.tensor(lookup.ids), lab.tensor(lookup.table)
    upstream, direction = lab.upstream(*lookup.shape), lab.upstream(*lookup.shape)

    def pull(u: torch.Tensor) -> Any:
        return torch.func.vjp(lambda w: f(ids, w), weight)[1](u)[0]

    both = torch.func.jvp(pull, (lab.tensor(upstream),), (lab.tensor(direction),))
    yield GradientOf(f"the gradient for {lookup}", read(both[0]), lookup, upstream)
    what = f"the tangent of the gradient for {lookup}"
    yield GradientOf(what, read(both[1]), lookup, direction)


def _tangent_of_dual_upstream(lab: Lab, lookup: Lookup) -> Claims:
    """Hand a dual upstream gradient to a backward pass, without torch.func."""
    f, ids, weight = lab.bind(lookup), lab.tensor(lookup.ids), lab.leaf(lookup.table)
    upstream, direction = lab.upstream(*lookup.shape), lab.upstream(*lookup.shape)
    forward_ad: Any = torch.autograd.forward_ad  # not typed
    with forward_ad.dual_level():
        f(ids, forward_ad.make_dual(weight, torch.ones_like(weight)))  # raises: no forward mode
        dual = forward_ad.make_dual(lab.tensor(upstream), lab.tensor(direction))
        (gradient,) = torch.autograd.grad(f(ids, weight), weight, dual, create_graph=True)
        got = forward_ad.unpack_dual(gradient).tangent
    what = f"the tangent of the gradient for {lookup}, the upstream gradient being dual"
    yield GradientOf(what, read(got), lookup, direction)
