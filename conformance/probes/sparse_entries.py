"""Sparse gradients as they are given, before they are accumulated: their rows and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.backends.backend import TABLE_DTYPES
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, Must, Returned
from embconform.conformance.probes.trained import OfIndices, lookups, trained
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup
from embconform.conformance.probes.transforms.common import (
    FLOAT32,
    MANY,
    Claims,
    Lab,
    Trial,
    probe_of,
)
from embconform.reference.dtypes import Array

_CLAUSE: Final = "sparse.asked-for"
COUNTS: Final = (1025, 3073, 2**16 + 1025)
"""More entries than blocks of 1,024 or 65,536 have, and no multiple of any tile."""
HEIGHT: Final = 50
RUN: Final = "the first half"
ZEROS: Final[dict[str, Callable[[int], slice]]] = {
    "half": lambda count: slice(None, None, 2),
    RUN: lambda count: slice(count // 2),
}
"""Which rows of an upstream gradient of so many are 0."""
FEW: Final = 9
OVERFLOWED: Final = (np.inf, np.nan, -np.inf)


def _asked_for(lab: Lab) -> Iterator[Trial]:
    for lookup in lookups(lab):
        if lookup.ids.ndim and "max_norm" not in lookup.options:  # see sparse.scalar-index
            options = lookup.options | {"sparse": True}
            rising = np.sort(lookup.ids, axis=None).reshape(lookup.ids.shape)
            for ids in (rising, lookup.ids):
                yield partial(_given, lab, replace(lookup, ids=ids, options=options))
            if not lab.backend.compiled:
                given = replace(lookup, options=options)
                yield partial(_given, lab, given, beside_dense=True)
    if not lab.backend.compiled:
        yield from _many(lab)
        yield from _overflows(lab)
        if "huge_tables" in lab.able and lab.backend.functional is not None:
            for dtype in ("int32", "int64") if "int32" in lab.able else ("int64",):
                yield partial(_tall, lab, dtype)


def _many(lab: Lab) -> Iterator[Trial]:
    """Leave the first and the last rows out, which a tail of entries may be filled up with."""
    for count in COUNTS[:-1] if lab.backend.interpreter else COUNTS:
        ids = lab.draw.integers(1, HEIGHT - 1, count)
        for options in lab.choices(ids, HEIGHT, "padding_idx"):
            lookup = Lookup(ids, lab.table(HEIGHT, 3), options | {"sparse": True}, lab.profile)
            yield partial(_given, lab, lookup)
            yield partial(_given, lab, replace(lookup, ids=np.sort(ids)))
    for count in (MANY, COUNTS[0]):  # most rows have one entry, some of them within a run of zeros
        ids = lab.draw.integers(0, 8 * count, count)
        for options in lab.choices(ids, 8 * count, "padding_idx"):
            lookup = Lookup(ids, lab.table(8 * count, 1), options | {"sparse": True}, lab.profile)
            yield partial(_given, lab, lookup, zeros=RUN)


def _overflows(lab: Lab) -> Iterator[Trial]:
    functional = lab.backend.functional is not None
    for name in TABLE_DTYPES if functional else ():
        if name in lab.backend.known_dtypes:
            ids = lab.draw.integers(0, HEIGHT, FEW)
            for options in lab.choices(ids, HEIGHT, "padding_idx"):
                lookup = Lookup(ids, lab.table(HEIGHT, 2), options, lab.profile)
                yield partial(_overflowed, lab, lookup, name)


def _overflowed(lab: Lab, lookup: Lookup, name: str) -> Claims:
    """Send what overflowed under a loss scale, which a gradient scaler must find."""
    functional, dtype = lab.backend.functional, getattr(torch, name)
    assert functional is not None
    upstream = lab.small(*lookup.shape)
    upstream[: len(OVERFLOWED), 1] = OVERFLOWED
    weight = lab.tensor(lookup.table).to(dtype).requires_grad_()
    out: Any = functional(lab.tensor(lookup.ids), weight, sparse=True, **lookup.options)
    (gradient,) = torch.autograd.grad(out, weight, lab.tensor(upstream).to(dtype))
    rows, summed = to_numpy(gradient._indices()[0]), np.zeros(lookup.table.shape)
    np.add.at(summed, rows, to_numpy(gradient._values().double()))
    what = f"what torch.autograd.grad gives for {lookup}, sparse=True, of {name}"
    told = f"{what}, the first {len(OVERFLOWED)} rows of the upstream gradient not being finite"
    yield from _named(told, rows, lookup)
    infinite = lookup.ids[: len(OVERFLOWED)][~lookup.padded[: len(OVERFLOWED)]]
    seen = np.flatnonzero(~np.isfinite(summed).all(1)).tolist()
    yield Equal(f"the rows that are not finite in {told}", seen, np.unique(infinite).tolist())


def _named(what: str, rows: Array, lookup: Lookup) -> Claims:
    """Demand an entry for each row that is looked up; padding may have some, of zeros."""
    padding, wanted = (set(lookup.ids[at].tolist()) for at in (lookup.padded, ~lookup.padded))
    named = {*rows.tolist()} - padding
    missing, others = sorted(wanted - named), sorted(named - wanted)
    yield Must(not missing, f"{what}, names no row of {missing[:FEW]}, which are looked up")
    yield Must(not others, f"{what}, names rows {others[:FEW]}, which are not looked up")


def _tall(lab: Lab, dtype: str) -> Claims:
    """Name odd rows that float32 rounds, in a table that only these rows are written of."""
    functional = lab.backend.functional
    assert functional is not None
    named = np.array([5, 0, 1, 3, 5, 3]) + FLOAT32
    ids = lab.tensor(named.astype(dtype))
    weight = torch.empty(FLOAT32 + HEIGHT, 1, device=lab.device)
    weight[ids.long()] = 1.0
    weight.requires_grad_()
    upstream = lab.upstream(len(named), 1)
    out: Any = functional(ids, weight, sparse=True)
    (gradient,) = torch.autograd.grad(out, weight, lab.tensor(upstream))
    rows, values = (to_numpy(part) for part in (gradient._indices()[0], gradient._values()))
    what = f"the gradient of {dtype} indices {named.tolist()}, sparse=True, in {len(weight)} rows"
    yield Equal(f"the rows named by {what}", sorted({*rows.tolist()}), sorted({*named.tolist()}))
    lookup = Lookup(named - FLOAT32, lab.table(HEIGHT, 1), {}, lab.profile)
    summed = np.zeros((HEIGHT, 1), np.float32)
    np.add.at(summed, rows - FLOAT32, values)
    seen = Returned("Tensor", "float32", summed.shape, summed)
    yield GradientOf(f"{what}, from row {FLOAT32} on", seen, lookup, upstream)


def _given(lab: Lab, lookup: Lookup, *, zeros: str = "half", beside_dense: bool = False) -> Claims:
    """Send zeros to half of the outputs, as a mask or a ReLU does; accumulating drops flags."""
    upstream = lab.upstream(*lookup.shape)
    upstream.reshape(lookup.ids.size, -1)[ZEROS[zeros](lookup.ids.size)] = 0.0
    weight, f = trained(lab, lookup)
    weight.grad = torch.ones_like(weight) if beside_dense else None
    told = "there is a dense .grad and " if beside_dense else ""
    for way, gradient in _gradients(lab.tensor(lookup.ids), weight, f, lab.tensor(upstream)):
        what = f"{way} for {lookup}, where {told}{zeros} of the upstream gradient is 0"
        yield Must(gradient.is_sparse, f"{what}, is not sparse")
        rows = to_numpy(gradient._indices())[0]
        yield from _named(what, rows, lookup)
        rises = bool((np.diff(rows) > 0).all())
        told = f"{what}, says that it is coalesced, and names {rows[:8].tolist()}"
        yield Must(rises or not gradient.is_coalesced(), told)


def _gradients(
    ids: torch.Tensor, weight: torch.Tensor, f: OfIndices, upstream: torch.Tensor
) -> Iterator[tuple[str, Any]]:
    yield "what torch.autograd.grad gives", torch.autograd.grad(f(ids), weight, upstream)[0]
    seen: list[torch.Tensor] = []
    handle = weight.register_hook(seen.append)  # type: ignore[no-untyped-call]
    torch.autograd.backward([f(ids)], [upstream])
    handle.remove()
    yield "what a hook of the table sees", seen[0]


SPARSE_ENTRIES_PROBE: Final = probe_of(_CLAUSE, _asked_for, "gradient", "sparse")
