"""Outputs that are written to in place, or multiplied by what is trained, as layers do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import cycle
from typing import Any, Final

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context, to_numpy
from embconform.conformance.probes.claims import SameBits
from embconform.conformance.probes.trained import FACTOR, lookups, many, trained, where_allowed
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial
from embconform.conformance.recording import read_dense
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

MANY: Final = 300
"""More indices than a tile of 256 has, and no multiple of any tile."""


def _double(out: torch.Tensor, upstream: Array) -> Array:
    out.mul_(FACTOR)
    return upstream * np.float32(FACTOR)


def _shift(out: torch.Tensor, upstream: Array) -> Array:
    out.add_(1.0)
    return upstream


def _rectify(out: torch.Tensor, upstream: Array) -> Array:
    positive = np.asarray(out.detach().cpu().numpy() > 0)
    out.relu_()
    return upstream * positive


def _drop(out: torch.Tensor, upstream: Array) -> Array:
    """Write zeros to a column, and double the rest, as a dropout in place does."""
    out[..., 0] = 0.0
    kept = upstream.copy()
    kept[..., 0] = 0.0
    return _double(out, kept)


OUTPUT_WRITES: Final = {"mul_": _double, "add_": _shift, "relu_": _rectify, "a dropout": _drop}


def written_output(lab: Lab) -> Iterator[Trial]:
    """Write to outputs before their backward pass, and to those that have none."""
    turns = cycle(OUTPUT_WRITES)
    for lookup in lookups(lab, "scale_grad_by_freq"):
        for name in [next(turns)] if lab.backend.compiled else OUTPUT_WRITES:
            yield partial(where_allowed, lab, lookup, partial(_gradient_after_write, name))
    if lab.backend.compiled:
        return
    for lookup in many(lab, MANY, *_options(lab)):
        for name in [next(turns)] if lookup.options else OUTPUT_WRITES:
            yield partial(where_allowed, lab, lookup, partial(_gradient_after_write, name))
    modes: tuple[GradMode, ...] = ("frozen", "no_grad")
    for lookup in lookups(lab):
        for mode in modes:
            for parameter in (True, False) if "functional" in lab.able else (True,):
                yield partial(_multiplied, lab, lookup, mode, parameter)


def _options(lab: Lab) -> tuple[str, ...]:
    """List the options that leave a gradient as the sum of shares, or of shares of a count."""
    bound = ("max_norm",) if lab.profile is Profile.TORCH else ()
    return ("padding_idx", "scale_grad_by_freq", *bound)


def _gradient_after_write(name: str, lab: Lab, lookup: Lookup) -> Claims:
    """Change the output in place, then differentiate."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    out = f(lab.tensor(lookup.ids))
    through = OUTPUT_WRITES[name](out, upstream)
    torch.autograd.backward([out], [lab.tensor(upstream)])
    what = f"weight.grad for {lookup}, the output being changed by {name} before"
    yield GradientOf(what, read_dense(weight.grad), lookup, through)


def _multiplied(lab: Lab, lookup: Lookup, mode: GradMode, parameter: bool) -> Claims:
    """Multiply the output of a table without gradient by what is trained, and write to it."""
    weight: Any = lab.tensor(lookup.table)
    if parameter:
        weight = torch.nn.Parameter(weight, requires_grad=mode != "frozen")
    out = _of_table(lab, lookup, mode, weight)
    before = to_numpy(out)
    factor = lab.leaf(np.ones(lookup.shape, np.float32))
    (gradient,) = torch.autograd.grad((out * factor).sum(), factor)
    kind = "a Parameter" if parameter else "a tensor"
    what = f"for {lookup} {MODE_WORDS[mode]}, the table being {kind}"
    told = f"the gradient of what the output is multiplied by {what}"
    yield SameBits(told, to_numpy(gradient), before)
    out.mul_(FACTOR)
    twice = before * np.float32(FACTOR)
    yield SameBits(f"the output {what}, doubled in place", to_numpy(out), twice)


def _of_table(lab: Lab, lookup: Lookup, mode: GradMode, weight: torch.Tensor) -> Any:
    """Look up in this very table, which a module is given as its own."""
    if lab.backend.functional is None:
        call: Any = lab.module(lookup)
        call.weight = weight
        arguments: tuple[Any, ...] = (lab.tensor(lookup.ids),)
    else:
        call, arguments = lab.bind(lookup), (lab.tensor(lookup.ids), weight)
    with grad_context(mode):
        return call(*arguments)
