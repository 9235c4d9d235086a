"""What a backward pass does with the tensors that it is given, and what it hands out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Any, Final, TypeAlias

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Must, SameBits
from embconform.conformance.probes.trained import WIDTH, lookups, trained
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import (
    Check,
    Claims,
    Lab,
    Trial,
    probe_of,
)
from embconform.conformance.recording import read, read_dense
from embconform.reference.dtypes import Array

TWICE: Final = np.float32(2)
TALL: Final = np.array([257, 771, 257, 4, 799])
"""Indices that bfloat16 rounds, into a table of 800 rows."""
_SCALED: Final = "scale_grad_by_freq"


def _kinds(lookup: Lookup, kinds: dict[str, Any], turns: Iterator[str]) -> list[str]:
    """Try each kind on a lookup without options, and one after the other on the others.

    No compiler sees them: they are of gradients alone.
    """
    return [next(turns)] if lookup.options else list(kinds)


# Accumulation in place


def _held(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    buffer = torch.zeros_like(weight)
    return buffer, buffer


def _bucket(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay the gradient in a flat buffer, as all gradients of a reduction are laid in one."""
    buffer = weight.new_zeros(weight.numel() + 7)
    return buffer, buffer[4:-3].view_as(weight)


def _columns(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay the gradient beside others."""
    buffer = weight.new_zeros(len(weight), weight.shape[1] + 2)
    return buffer, buffer[:, 1:-1]


def _transposed(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay the gradient column by column, as that of a layer that is tied the other way round."""
    buffer = weight.new_zeros(weight.shape[1], weight.shape[0])
    return buffer, buffer.t()


PLACES: Final = {
    "a tensor": _held,
    "a view of a buffer": _bucket,
    "columns of a buffer": _columns,
    "a transposed buffer": _transposed,
}
"""What .grad is set to: the memory that must get the gradient, and the view of it."""


def _accumulated(lab: Lab) -> Iterator[Trial]:
    turns = cycle(PLACES)
    for lookup in lookups(lab, "scale_grad_by_freq"):
        for place in _kinds(lookup, PLACES, turns):
            yield partial(_passes_into, place, lab, lookup)


def _passes_into(place: str, lab: Lab, lookup: Lookup) -> Claims:
    """Let two passes add to a gradient that others hold a view of."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    buffer, weight.grad = PLACES[place](weight.detach())
    view = weight.grad
    for _ in range(2):
        torch.autograd.backward([f(lab.tensor(lookup.ids))], [lab.tensor(upstream)])
    what = f"for {lookup}, where .grad was {place} and two passes added to it"
    yield GradientOf(
        f"the memory that was .grad {what}", read_dense(view), lookup, upstream * TWICE
    )
    yield GradientOf(f"weight.grad {what}", read_dense(weight.grad), lookup, upstream * TWICE)
    with torch.no_grad():
        view.zero_()
    yield Must(not bool(buffer.any()), f"the memory around .grad was written to {what}")


# What is asked for


def _asked_for(lab: Lab) -> Iterator[Trial]:
    for lookup in lookups(lab, "scale_grad_by_freq"):
        yield partial(_gradient_not_accumulated, lab, lookup)
        if lab.backend.compiled:
            continue
        yield partial(_gradient_of_the_output, lab, lookup)
        if "double_backward" in lab.able:
            yield partial(_gradient_with_a_graph, lab, lookup)


def _gradient_not_accumulated(lab: Lab, lookup: Lookup) -> Claims:
    """Ask for the gradient by torch.autograd.grad, which leaves .grad alone."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    weight.grad = torch.ones_like(weight)
    out = f(lab.tensor(lookup.ids))
    (got,) = torch.autograd.grad(out, weight, lab.tensor(upstream))
    yield GradientOf(f"torch.autograd.grad for {lookup}", read_dense(got), lookup, upstream)
    kept = bool((weight.grad == 1).all())
    yield Must(kept, f"torch.autograd.grad for {lookup} wrote to weight.grad")


def _gradient_of_the_output(lab: Lab, lookup: Lookup) -> Claims:
    """Ask for the gradient of the output, as saliency maps do, and of another leaf."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    factor = lab.leaf(np.ones((), np.float32))
    out = f(lab.tensor(lookup.ids))
    loss = (out * factor * lab.tensor(upstream)).sum()
    (got,) = torch.autograd.grad(loss, out, retain_graph=True)
    yield SameBits(f"the gradient of the output for {lookup}", to_numpy(got), upstream)
    yield Must(weight.grad is None, f"the gradient of the output for {lookup} filled weight.grad")
    loss.backward(inputs=[factor], retain_graph=True)
    yield Must(weight.grad is None, f"the gradient of a factor for {lookup} filled weight.grad")
    loss.backward(inputs=[weight], retain_graph=True)
    what = f"weight.grad for {lookup}, asked for after that of the output"
    yield GradientOf(what, read_dense(weight.grad), lookup, upstream)
    out.retain_grad()
    loss.backward()
    what = f"for {lookup}, after a second pass, with retain_grad() on the output"
    yield SameBits(f"the output's .grad {what}", to_numpy(out.grad), upstream)
    yield GradientOf(f"weight.grad {what}", read_dense(weight.grad), lookup, upstream * TWICE)


def _gradient_with_a_graph(lab: Lab, lookup: Lookup) -> Claims:
    """Record the backward pass, for upstream gradients that need a graph and that do not."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    for leaf in (False, True):
        given = lab.tensor(upstream).requires_grad_(leaf)
        out = f(lab.tensor(lookup.ids))
        (got,) = torch.autograd.grad(out, weight, given, create_graph=True)
        what = f"torch.autograd.grad(create_graph=True) for {lookup}"
        yield GradientOf(what, read_dense(got), lookup, upstream)
        yield Must(weight.grad is None, f"{what} filled weight.grad")


# Memory of its own

Spread: TypeAlias = Callable[[Array], Array]
UPSTREAMS: Final[dict[str, Spread]] = {
    "with elements of its own": lambda values: values,
    "expanded over the columns": lambda values: values[..., :1],
    "expanded over the indices": lambda values: values[:1],
    "expanded from one number": lambda values: values.reshape(-1)[:1].reshape((1,) * values.ndim),
}


WAYS: Final = {"weight.grad": True, "what torch.autograd.grad gives": False}
"""The gradients that a caller may write to, and whether they are accumulated."""


def _own_memory(lab: Lab) -> Iterator[Trial]:
    turns, ways = cycle(UPSTREAMS), cycle(WAYS)
    for lookup in lookups(lab, "scale_grad_by_freq"):
        for name in _kinds(lookup, UPSTREAMS, turns):
            yield partial(_written_gradient, name, lab, lookup)
        if not lab.backend.compiled and "max_norm" not in lookup.options:
            yield partial(_written_one_of_two, lab, lookup)
        if not lab.backend.compiled:
            for way in _kinds(lookup, WAYS, ways):
                yield partial(_written_before_the_next, way, lab, lookup)
    if not lab.backend.compiled:  # the gradient of all rows in order is the upstream's values
        every = Lookup(np.arange(WIDTH), np.abs(lab.table(WIDTH, WIDTH)) + 1, {}, lab.profile)
        yield partial(_written_gradient, next(iter(UPSTREAMS)), lab, every)


def _written_gradient(name: str, lab: Lab, lookup: Lookup) -> Claims:
    """Scale the gradient in place, as clipping does, and look at what it was made from."""
    weight, f = trained(lab, lookup)
    few = UPSTREAMS[name](lab.upstream(*lookup.shape))
    upstream = np.broadcast_to(few, lookup.shape).copy()
    given = lab.tensor(few).expand(lookup.shape)
    out = f(lab.tensor(lookup.ids))
    (got,) = torch.autograd.grad(out, weight, given)
    what = f"for {lookup}, the upstream gradient being {name}"
    yield GradientOf(f"the gradient {what}", read(got), lookup, upstream)
    got.mul_(2.0)
    yield GradientOf(f"the gradient, doubled in place, {what}", read(got), lookup, upstream * TWICE)
    told = f"the upstream gradient after the table's was doubled in place {what}"
    yield SameBits(told, to_numpy(given), upstream)


def _written_one_of_two(lab: Lab, lookup: Lookup) -> Claims:
    """Add lookups of two tables by one index tensor, and scale the first one's gradient in place.

    Both tables have the same gradient, as the terms of a sum have: it must not be stored once.
    """
    other = lookup.into(np.abs(lab.table(*lookup.table.shape)) + 1)
    (first, f), (second, g) = trained(lab, lookup), trained(lab, other)
    ids, upstream = lab.tensor(lookup.ids), lab.upstream(*lookup.shape)
    got = torch.autograd.grad(f(ids) + g(ids), (first, second), lab.tensor(upstream))
    got[0].mul_(2.0)
    what = f"of two tables whose lookups are added, for {lookup}"
    whole = upstream * TWICE
    yield GradientOf(f"the first gradient, doubled in place, {what}", read(got[0]), lookup, whole)
    yield GradientOf(f"the second gradient {what}", read(got[1]), other, upstream)


def _written_before_the_next(way: str, lab: Lab, lookup: Lookup) -> Claims:
    """Write to the whole of a gradient, drop it, and look other rows up, three times."""
    (weight, f), ids = trained(lab, lookup), lookup.ids
    for number in ("first", "second", "third"):
        now, upstream = replace(lookup, ids=ids), lab.upstream(*lookup.shape)
        out = f(lab.tensor(ids))
        if WAYS[way]:
            torch.autograd.backward([out], [lab.tensor(upstream)])
            got: Any = weight.grad
        else:
            (got,) = torch.autograd.grad(out, weight, lab.tensor(upstream))
        what = f"{way} in the {number} pass for {now}, the gradients before being written to"
        yield GradientOf(what, read(got), now, upstream)
        got.fill_(float("nan"))
        del got, out
        weight.grad = None
        ids = np.asarray(lab.draw.permutation(ids.reshape(-1) // 2).reshape(ids.shape))


# Views as upstream gradients


def _negated(values: torch.Tensor) -> torch.Tensor:
    return torch._neg_view(-values)


def _imaginary(values: torch.Tensor) -> torch.Tensor:
    """Give the imaginary part of a conjugate: lazily negated, and interleaved with the real one."""
    return torch.complex(values + 1, -values).conj().imag


def _by_columns(values: torch.Tensor) -> torch.Tensor:
    axes = tuple(reversed(range(values.dim())))
    return values.permute(axes).contiguous().permute(axes)


def _off_the_start(values: torch.Tensor) -> torch.Tensor:
    """Let values begin one element into their memory, where no vector of elements begins."""
    return torch.cat([values.new_ones(1), values.reshape(-1)])[1:].view_as(values)


UPSTREAM_VIEWS: Final[dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "negated when it is read": _negated,
    "the imaginary part of a conjugate": _imaginary,
    "laid out by columns": _by_columns,
    "off the start of its memory": _off_the_start,
}


def _viewed(lab: Lab) -> Iterator[Trial]:
    turns = cycle(UPSTREAM_VIEWS)
    for lookup in lookups(lab, "scale_grad_by_freq"):
        for name in _kinds(lookup, UPSTREAM_VIEWS, turns):
            yield partial(_gradient_of_view, name, lab, lookup)
        if lab.backend.compiled or not lookup.ids.ndim:
            continue  # of one index alone sparse.scalar-index speaks
        if "sparse" in lab.able and lookup.options.keys() <= {"padding_idx"}:
            sparse = replace(lookup, options=lookup.options | {"sparse": True})
            for name in _kinds(lookup, UPSTREAM_VIEWS, turns):
                yield partial(_gradient_of_view, name, lab, sparse)


def _gradient_of_view(name: str, lab: Lab, lookup: Lookup) -> Claims:
    """Give the upstream gradient as a view of the same values."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    given = UPSTREAM_VIEWS[name](lab.tensor(upstream))
    torch.autograd.backward([f(lab.tensor(lookup.ids))], [given])
    what = f"weight.grad for {lookup}, the upstream gradient being {name}"
    yield GradientOf(what, read_dense(weight.grad), lookup, upstream)


# Saved tensors


def _copied(saved: torch.Tensor) -> Any:
    return saved.clone()


def _shortened(saved: torch.Tensor) -> Any:
    return saved.bfloat16() if saved.is_floating_point() else saved


def _packed(pack: Callable[[torch.Tensor], Any]) -> AbstractContextManager[Any]:
    """Keep what is saved for backward in another form, and give it back in its own dtype."""
    return torch.autograd.graph.saved_tensors_hooks(
        lambda saved: (pack(saved), saved.dtype), lambda kept: kept[0].to(kept[1])
    )


PACKED: Final = {"copies": _copied, "bfloat16 where it is of floating point": _shortened}


def _saved(lab: Lab) -> Iterator[Trial]:
    names = lab.few(list(PACKED))
    for lookup in lookups(lab, _SCALED):
        for name in names[:1] if {"max_norm", _SCALED} & lookup.options.keys() else names:
            yield partial(_gradient_of_packed, name, lab, lookup)
    if not lab.backend.compiled:
        tall = Lookup(TALL, np.abs(lab.table(800, WIDTH)) + 1, {}, lab.profile)
        for name in names:
            yield partial(_gradient_of_packed, name, lab, tall)


def _gradient_of_packed(name: str, lab: Lab, lookup: Lookup) -> Claims:
    """Look up under hooks that keep what is saved in a form of their own.

    The indices are a buffer that was written to: a copy has their values, and another version.
    """
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    ids = lab.tensor(lookup.ids).add_(0)
    with _packed(PACKED[name]):
        out = f(ids)
    torch.autograd.backward([out], [lab.tensor(upstream)])
    what = f"weight.grad for {lookup}, hooks keeping what it saved as {name}"
    yield GradientOf(what, read_dense(weight.grad), lookup, upstream)


# Anomaly mode


def _watched(lab: Lab) -> Iterator[Trial]:
    for lookup in lookups(lab, "scale_grad_by_freq"):
        yield partial(_gradient_in_anomaly_mode, lab, lookup)


def _gradient_in_anomaly_mode(lab: Lab, lookup: Lookup) -> Claims:
    """Look up and differentiate while torch looks for NaN in every step of the backward pass."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    with torch.autograd.set_detect_anomaly(True):
        out = f(lab.tensor(lookup.ids))
        torch.autograd.backward([out], [lab.tensor(upstream)])
    if "max_norm" not in lookup.options:
        yield Rows(f"the output in anomaly mode for {lookup}", read(out), lookup)
    what = f"weight.grad in anomaly mode for {lookup}"
    yield GradientOf(what, read_dense(weight.grad), lookup, upstream)


CHECKS: Final[dict[str, Check]] = {
    "gradient.accumulates-in-place": _accumulated,
    "gradient.asked-for": _asked_for,
    "gradient.own-memory": _own_memory,
    "gradient.upstream-views": _viewed,
    "gradient.saved-tensors": _saved,
    "gradient.anomaly-mode": _watched,
}

PASS_PROBES: Final = tuple(probe_of(clause, check, "gradient") for clause, check in CHECKS.items())
