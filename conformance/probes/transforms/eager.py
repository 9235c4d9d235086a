"""Lookups under torch's transforms of eager code: derivatives, vmap, functional_call, autocast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Claim, Must, SameBits
from embconform.conformance.probes.transforms.claims import (
    Bounded,
    GradientOf,
    Jacobian,
    Lookup,
    Rows,
)
from embconform.conformance.probes.transforms.common import (
    MANY,
    MAX_NORM,
    Check,
    Claims,
    Lab,
    Trial,
    members,
    probe_of,
)
from embconform.conformance.probes.transforms.forward_mode import forward_mode, forward_over_reverse
from embconform.conformance.recording import attempt, read, read_dense
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

MEMBERS = np.array([[2, 2, 1], [2, 1, 1], [0, 3, 2]])
ALONE = ("indices", "tables")
"""What vmap maps over where it maps over one argument only."""
"""Indices of three members: unequal counts, and each index in several members."""

# Derivatives


def _func_grad(lab: Lab) -> Iterator[Trial]:
    for lookup in lab.lookups("padding_idx", "scale_grad_by_freq"):
        yield partial(_grad_and_vjp, lab, lookup)


def _grad_and_vjp(lab: Lab, lookup: Lookup) -> Claims:
    f, ids, weight = lab.bind(lookup), lab.tensor(lookup.ids), lab.leaf(lookup.table)
    upstream = lab.upstream(*lookup.shape)
    u = lab.tensor(upstream)
    gradient = torch.func.grad(lambda w: (f(ids, w) * u).sum())(weight)
    yield GradientOf(f"torch.func.grad for {lookup}", read(gradient), lookup, upstream)
    results: Any = torch.func.vjp(lambda w: f(ids, w), weight)
    out, pull = results
    yield Rows(f"the output of torch.func.vjp for {lookup}", read(out), lookup)
    yield GradientOf(f"torch.func.vjp for {lookup}", read(pull(u)[0]), lookup, upstream)
    yield Must(weight.grad is None, f"torch.func.grad for {lookup} wrote to .grad")


def _jacobian(lab: Lab) -> Iterator[Trial]:
    for lookup in lab.lookups("padding_idx"):
        yield partial(_ones_at_the_indices, lab, lookup)


def _ones_at_the_indices(lab: Lab, lookup: Lookup) -> Claims:
    f, ids = lab.bind(lookup), lab.tensor(lookup.ids)
    got = torch.func.jacrev(lambda w: f(ids, w))(lab.tensor(lookup.table))
    yield Jacobian(f"torch.func.jacrev for {lookup}", read(got), lookup)


def _batched(lab: Lab) -> Iterator[Trial]:
    for lookup in lab.lookups("padding_idx", "scale_grad_by_freq"):
        yield partial(_gradients_at_once, lab, lookup)


def _gradients_at_once(lab: Lab, lookup: Lookup) -> Claims:
    """Hand three upstream gradients to one backward pass."""
    weight = lab.leaf(lookup.table)
    out = lab.bind(lookup)(lab.tensor(lookup.ids), weight)
    upstream = lab.upstream(3, *lookup.shape)
    (got,) = torch.autograd.grad(out, weight, lab.tensor(upstream), is_grads_batched=True)
    what = f"three gradients of one pass, is_grads_batched=True, for {lookup}"
    yield GradientOf(what, read(got), [lookup] * 3, upstream)


# vmap


def _vmap(
    lab: Lab, lookups: list[Lookup], kind: str, ids: torch.Tensor, weight: torch.Tensor
) -> Any:
    """Run members together; for kind ``indices`` they share `weight`, for ``tables`` `ids`."""
    axes = {"indices": (0, None), "tables": (None, 0), "both": (0, 0)}[kind]
    return torch.vmap(lab.bind(lookups[0]), in_dims=axes)(ids, weight)


def _sharing(lookups: list[Lookup], kind: str) -> tuple[list[Lookup], Array, Array]:
    """Let members share a table or indices; give them, and the arguments of the call."""
    first = lookups[0]
    if kind == "indices":
        lookups = [lookup.into(first.table) for lookup in lookups]
        return lookups, members(lookups, "ids"), first.table
    if kind == "tables":
        lookups = [first.into(lookup.table) for lookup in lookups]
        return lookups, first.ids, members(lookups, "table")
    return lookups, members(lookups, "ids"), members(lookups, "table")


def _member_ids(lab: Lab) -> list[Any]:
    """List indices by member: fixed, of no dimension, of two, and drawn ones."""
    size = (*lab.draw.integers(2, 5, 2), int(lab.draw.integers(1, 4)))
    return [MEMBERS, MEMBERS[:, 0], lab.draw.integers(0, 5, size), MEMBERS[:1]]


def _vmapped(kind: str, lab: Lab) -> Iterator[Trial]:
    for ids in _member_ids(lab):
        for lookups in lab.members(ids, "padding_idx"):
            spread = ids.ndim if kind == "indices" else 3
            for axis in range(spread):
                yield partial(_rows_of_members, lab, lookups, kind, axis)
            if kind == "both":
                yield partial(_nested, lab, lookups)
            if len(lookups) > 1:
                yield partial(_rows_by_chunk, lab, lookups, kind)


def _rows_of_members(lab: Lab, lookups: list[Lookup], kind: str, axis: int) -> Claims:
    """Put the members of the batched argument, of the tables where both are, on an axis."""
    lookups, ids, weight = _sharing(lookups, kind)
    axes = {"indices": (axis, None), "tables": (None, axis), "both": (ids.ndim - 1, axis)}[kind]
    ids, weight = (
        array if to is None else np.moveaxis(array, 0, to)
        for array, to in zip((ids, weight), axes, strict=True)
    )
    f = lab.bind(lookups[0])
    got = torch.vmap(f, in_dims=axes)(lab.tensor(ids), lab.tensor(weight))
    yield Rows(f"vmap with in_dims={axes} of {_told(lookups)}", read(got), lookups)


def _rows_by_chunk(lab: Lab, lookups: list[Lookup], kind: str) -> Claims:
    """Run all members but one together, then the last by itself."""
    lookups, ids, weight = _sharing(lookups, kind)
    axes = {"indices": (0, None), "tables": (None, 0), "both": (0, 0)}[kind]
    f, size = lab.bind(lookups[0]), len(lookups) - 1
    got = torch.vmap(f, in_dims=axes, chunk_size=size)(lab.tensor(ids), lab.tensor(weight))
    what = f"vmap with in_dims={axes} and chunk_size={size} of {_told(lookups)}"
    yield Rows(what, read(got), lookups)


def _nested(lab: Lab, lookups: list[Lookup]) -> Claims:
    """Look all members' indices up in all members' tables."""
    _, ids, weight = _sharing(lookups, "both")
    inner = torch.vmap(lab.bind(lookups[0]), in_dims=(0, None))
    got = torch.vmap(inner, in_dims=(None, 0))(lab.tensor(ids), lab.tensor(weight))
    every = [[lookup.into(other.table) for lookup in lookups] for other in lookups]
    yield Rows(f"vmap over tables of vmap over indices of {_told(lookups)}", read(got), every)


def _told(lookups: list[Lookup]) -> str:
    """Name members in a message."""
    options = "".join(f", {name}={value}" for name, value in lookups[0].options.items())
    return f"members' indices {[lookup.ids.tolist() for lookup in lookups]}{options}"


def _vmap_range(kinds: tuple[str, ...], lab: Lab) -> Iterator[Trial]:
    bad = [(0, 0), (1, 0), (0, 1)]
    bad += [(-1, 1), (-1, 0)] if lab.profile is Profile.TORCH else []
    for kind in kinds:
        for lookups in lab.members(MEMBERS, "padding_idx"):
            for past, member in bad:
                yield partial(_out_of_range, lab, lookups, kind, past, member)


def _out_of_range(lab: Lab, lookups: list[Lookup], kind: str, past: int, member: int) -> Claims:
    lookups, ids, weight = _sharing(lookups, kind)
    _vmap(lab, lookups, kind, lab.tensor(ids), lab.tensor(weight))  # raises: it refuses vmap
    wrong, height = ids.copy(), len(lookups[0].table)
    place = (0,) if kind == "tables" else (member, 0)
    wrong[place] = past if past < 0 else height + past
    what = f"vmap over {kind} with index {wrong[place]} in a table of {height} rows"
    yield attempt(what, lambda: _vmap(lab, lookups, kind, lab.tensor(wrong), lab.tensor(weight)))


def _vmap_gradient(option: str | None, kinds: tuple[str, ...], lab: Lab) -> Iterator[Trial]:
    for ids in _member_ids(lab):
        for lookups in lab.members(ids, *([option] if option else [])):
            if option is None or option in lookups[0].options:
                for kind in kinds:
                    yield partial(_gradient_of_members, lab, lookups, kind)


def _gradient_of_members(lab: Lab, lookups: list[Lookup], kind: str) -> Claims:
    lookups, ids, table = _sharing(lookups, kind)
    weight = lab.leaf(table)
    out = _vmap(lab, lookups, kind, lab.tensor(ids), weight)
    upstream = lab.upstream(len(lookups), *lookups[0].shape)
    (got,) = torch.autograd.grad(out, weight, lab.tensor(upstream))
    what = f"the gradient of vmap over {kind} of {_told(lookups)}"
    yield GradientOf(what, read(got), lookups, upstream, shared=kind == "indices")


def _vmap_max_norm(lab: Lab) -> Iterator[Trial]:
    for ids in _member_ids(lab):
        for lookups in lab.members(ids, "max_norm"):
            if "max_norm" in lookups[0].options:
                for kind in ("both", "tables"):
                    yield partial(_bounded_members, lab, lookups, kind)


def _bounded_members(lab: Lab, lookups: list[Lookup], kind: str) -> Claims:
    lookups, ids, table = _sharing(lookups, kind)
    weight = lab.tensor(table)
    out = _vmap(lab, lookups, kind, lab.tensor(ids), weight)
    for number, lookup in enumerate(lookups):
        what = f"member {number} of vmap over {kind} of {lookup}"
        yield Bounded(what, read(out[number]), read(weight[number]), lookup)


def _per_sample(lab: Lab) -> Iterator[Trial]:
    for ids in _member_ids(lab):
        for lookups in lab.members(ids, "padding_idx", "scale_grad_by_freq"):
            for kind in ("both", "indices", "tables"):
                yield partial(_gradient_by_member, lab, lookups, kind)


def _gradient_by_member(lab: Lab, lookups: list[Lookup], kind: str) -> Claims:
    lookups, ids, table = _sharing(lookups, kind)
    f = lab.bind(lookups[0])
    upstream = lab.upstream(len(lookups), *lookups[0].shape)
    axes = {"indices": (None, 0, 0), "tables": (0, None, 0), "both": (0, 0, 0)}[kind]
    gradient = torch.func.grad(lambda w, i, u: (f(i, w) * u).sum())
    got = torch.vmap(gradient, axes)(lab.tensor(table), lab.tensor(ids), lab.tensor(upstream))
    what = f"vmap over {kind} of torch.func.grad of {_told(lookups)}"
    yield GradientOf(what, read(got), lookups, upstream)


# Programs


def _functional_call(lab: Lab) -> Iterator[Trial]:
    for lookup in lab.lookups("padding_idx"):
        for mode in ("train", "eval"):
            yield partial(_other_weights, lab, lookup, mode)


def _other_weights(lab: Lab, lookup: Lookup, mode: str) -> Claims:
    """Call with two other tables, then plainly."""
    module, ids = lab.module(lookup), lab.tensor(lookup.ids)
    own = module.weight
    module.train(mode == "train")
    module(ids)
    for call in (f"first {mode} mode", f"second {mode} mode"):
        other = lookup.into(lab.table(*lookup.table.shape))
        weight = lab.leaf(other.table)
        out = torch.func.functional_call(module, {"weight": weight}, (ids,))
        what = f"the {call} functional_call for {lookup}"
        yield Rows(f"the output of {what}", read(out), other)
        if "gradient" not in lab.able:
            return
        upstream = lab.upstream(*lookup.shape)
        out.backward(lab.tensor(upstream))
        yield GradientOf(f"the gradient of {what}", read(weight.grad), lookup, upstream)
        yield Must(own.grad is None, f"{what} gave the module's own table a gradient")
    what = f"the module's output after functional_call for {lookup}"
    yield Rows(what, read(module(ids)), lookup)
    yield SameBits("the module's own table", to_numpy(own), lookup.table)


def _autocast(lab: Lab) -> Iterator[Trial]:
    names = ("padding_idx",) if lab.backend.compiled else ("padding_idx", "scale_grad_by_freq")
    for lookup in lab.lookups(*names):
        for dtype in (torch.bfloat16, torch.float16):
            yield partial(_cast, lab, lookup, dtype)
            plain = lookup.ids.ndim and lookup.options.keys() <= {"padding_idx"}
            if "sparse" in lab.able and not lab.backend.compiled and plain:
                sparse = replace(lookup, options=lookup.options | {"sparse": True})
                yield partial(_cast, lab, sparse, dtype)
    ids = np.array([[2049, 257], [2051, 4]])  # beyond what halves count to
    tall = Lookup(ids, lab.table(2052, 2), {}, lab.profile)
    yield partial(_cast, lab, tall, torch.bfloat16)
    yield partial(_cast, lab, tall, torch.float16)
    if "max_norm" in lab.able and not lab.backend.compiled:
        for width in (3, MANY):
            table = lab.table(5, width) * np.float32(3)
            lookup = Lookup(MEMBERS, table, {"max_norm": MAX_NORM}, lab.profile)
            yield partial(_bounded_under_autocast, lab, lookup)


def _cast(lab: Lab, lookup: Lookup, dtype: torch.dtype) -> Claims:
    f, weight = lab.bind(lookup), lab.tensor(lookup.table)
    weight.requires_grad_("gradient" in lab.able)
    with torch.autocast(lab.device, dtype):
        out = f(lab.tensor(lookup.ids), weight)
    what = f"under autocast to {dtype} for {lookup}"
    yield Rows(f"the output {what}", read(out), lookup)
    if weight.requires_grad:
        upstream = lab.upstream(*lookup.shape)
        out.backward(lab.tensor(upstream))
        yield GradientOf(f"the gradient {what}", read_dense(weight.grad), lookup, upstream)
        if not lab.backend.compiled:
            yield _taken_within(lab, lookup, dtype, upstream)
    with torch.no_grad():
        after = f(lab.tensor(lookup.ids), weight)
    yield Rows(f"the output after a call {what}", read(after), lookup)


def _taken_within(lab: Lab, lookup: Lookup, dtype: torch.dtype, upstream: Array) -> Claim:
    """Take the gradient under autocast, too, as a penalty on gradients does."""
    weight = lab.leaf(lookup.table)
    with torch.autocast(lab.device, dtype):
        out = lab.bind(lookup)(lab.tensor(lookup.ids), weight)
        (gradient,) = torch.autograd.grad(out, weight, lab.tensor(upstream))
    what = f"the gradient that is taken under autocast to {dtype} for {lookup}"
    return GradientOf(what, read_dense(gradient), lookup, upstream)


def _bounded_under_autocast(lab: Lab, lookup: Lookup) -> Claims:
    """Bound rows of float32 where norms are of lists of casts."""
    weight = lab.tensor(lookup.table)
    with torch.autocast(lab.device, torch.bfloat16):
        out = lab.bind(lookup)(lab.tensor(lookup.ids), weight)
    what = f"a call under autocast to torch.bfloat16 for {lookup}"
    yield Bounded(what, read(out), read(weight), lookup)


CHECKS: dict[str, Check] = {
    "transforms.forward-mode": forward_mode,
    "transforms.forward-over-reverse": forward_over_reverse,
    "transforms.func-grad": _func_grad,
    "transforms.jacobian": _jacobian,
    "transforms.batched-gradient": _batched,
    "transforms.vmap-indices": partial(_vmapped, "indices"),
    "transforms.vmap-tables": partial(_vmapped, "tables"),
    "transforms.vmap-both": partial(_vmapped, "both"),
    "transforms.vmap-range": partial(_vmap_range, ("both",)),
    "transforms.vmap-range-alone": partial(_vmap_range, ALONE),
    "transforms.vmap-gradient": partial(_vmap_gradient, None, ("both", *ALONE)),
    "transforms.vmap-padding": partial(_vmap_gradient, "padding_idx", ("both",)),
    "transforms.vmap-padding-alone": partial(_vmap_gradient, "padding_idx", ALONE),
    "transforms.vmap-scaled": partial(_vmap_gradient, "scale_grad_by_freq", ("indices",)),
    "transforms.vmap-scaled-tables": partial(
        _vmap_gradient, "scale_grad_by_freq", ("both", "tables")
    ),
    "transforms.vmap-max-norm": _vmap_max_norm,
    "transforms.per-sample-gradient": _per_sample,
    "transforms.functional-call": _functional_call,
    "transforms.autocast": _autocast,
}


TRANSFORM_PROBES = tuple(
    probe_of(clause, check, may_refuse=True) for clause, check in CHECKS.items()
)
