"""Lookups that are recorded, not made: of tensors without values, and traced for later ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.backends.backend import TABLE_DTYPES
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Equal, Must
from embconform.conformance.probes.transforms.claims import Bounded, GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import (
    MANY,
    Check,
    Claims,
    Lab,
    Trial,
    compiled_already,
    probe_of,
)
from embconform.conformance.recording import read, read_dense

HEIGHT, WIDTH = 9, 3
SHAPES: Final = ((4,), (2, 3), (), (MANY,))


# Without values


def _without_values(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        yield compiled_already
        return
    names = [name for name in TABLE_DTYPES if name in lab.backend.known_dtypes]
    for name in names:
        for shape in SHAPES:
            yield partial(_shaped, lab, getattr(torch, name), shape)


def _shaped(lab: Lab, dtype: torch.dtype, shape: tuple[int, ...]) -> Claims:
    """Look up in a table of shape and dtype only."""
    lookup = Lookup(
        np.zeros(shape, np.int64), np.ones((HEIGHT, WIDTH), np.float32), {}, lab.profile
    )
    ids = torch.zeros(shape, dtype=torch.int64, device="meta")
    weight = torch.ones(HEIGHT, WIDTH, dtype=dtype, device="meta")
    out: Any = lab.bind(lookup)(ids, weight)
    told = f"indices of shape {shape} and a table of {HEIGHT} x {WIDTH}, {dtype}, on meta"
    tensor = isinstance(out, torch.Tensor)
    yield Must(tensor, f"the output for {told} is of type {type(out).__name__}")
    if tensor:
        seen = (str(out.dtype), tuple(out.shape), str(out.device))
        yield Equal(f"what the output for {told} has", seen, (str(dtype), (*shape, WIDTH), "meta"))


# Traced


def _traced(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        yield compiled_already
        return
    for shape in SHAPES:
        for held in (False, True):
            yield partial(_others, lab, shape, held)
        if "max_norm" in lab.able:
            for options in ({"max_norm": 1.0}, {"max_norm": 1.5, "norm_type": 1.0}):
                yield partial(_beyond, lab, shape, options)
        if {"padding_idx", "gradient"} <= lab.able:
            yield partial(_padded, lab, shape)


def _beyond(lab: Lab, shape: tuple[int, ...], options: dict[str, Any]) -> Claims:
    """Trace a call whose rows are within the bound, and call it with rows beyond it."""
    table = lab.table(HEIGHT, WIDTH)
    ids = [np.asarray(lab.draw.integers(0, HEIGHT, shape)) for _ in range(2)]
    first = Lookup(ids[0], table / np.float32(64), options, lab.profile)
    later = Lookup(ids[1], table * np.float32(8), options, lab.profile)
    example = (lab.tensor(first.ids), lab.tensor(first.table))
    traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
        lab.bind(first), example, check_trace=False
    )
    weight = lab.tensor(later.table)
    out = traced(lab.tensor(later.ids), weight)
    told = f"a call traced with rows within the bound, for {later}"
    yield Bounded(told, read(out), read(weight), later)


def _padded(lab: Lab, shape: tuple[int, ...]) -> Claims:
    """Trace a call without padding among its indices, and call it with some."""
    ids = np.asarray(lab.draw.integers(1, HEIGHT, shape))
    first = Lookup(ids, lab.table(HEIGHT, WIDTH), {"padding_idx": 0}, lab.profile)
    later = replace(first, ids=np.where(np.arange(ids.size).reshape(shape) % 2, ids, 0))
    weight = lab.tensor(first.table).requires_grad_()
    traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
        lab.bind(first), (lab.tensor(first.ids), weight), check_trace=False
    )
    upstream = lab.upstream(*later.shape)
    traced(lab.tensor(later.ids), weight).backward(lab.tensor(upstream))
    told = f"weight.grad of a call traced without padding, for {later}"
    yield GradientOf(told, read_dense(weight.grad), later, upstream)


def _others(lab: Lab, shape: tuple[int, ...], held: bool) -> Claims:
    """Trace a call, its table an argument or held, and call it with others."""
    first, later = (
        Lookup(np.asarray(lab.draw.integers(0, HEIGHT, shape)), table, {}, lab.profile)
        for table in np.abs(lab.table(2, HEIGHT, WIDTH))  # one-hot rows lose a -0
    )
    call, weight = lab.bind(first), lab.tensor(first.table)
    if held:
        later = later.into(first.table)
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            lambda ids: call(ids, weight), (lab.tensor(first.ids),), check_trace=False
        )
        out = traced(lab.tensor(later.ids))
    else:
        example = (lab.tensor(first.ids), weight)
        traced = torch.jit.trace(call, example, check_trace=False)  # type: ignore[no-untyped-call]
        out = traced(lab.tensor(later.ids), lab.tensor(later.table))
    ids = f"traced with indices {first.ids.tolist()}, " if first.ids.size < MANY else "traced, "
    yield Rows(f"the output, {ids}called with {later}", read(out), later)


CHECKS: dict[str, Check] = {
    "transforms.meta": _without_values,
    "transforms.trace": _traced,
}


RECORDED_PROBES: Final = tuple(
    probe_of(clause, check, "functional", may_refuse=True) for clause, check in CHECKS.items()
)
