"""More calls on one table than a counter, a pool or a warm-up is made for, all outputs held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any, Final

import ml_dtypes
import numpy as np

from embconform.backends.backend import TABLE_DTYPES
from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context, to_numpy
from embconform.conformance.probes.claims import Claim, SameBits
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import (
    MANY,
    Claims,
    Lab,
    Trial,
    probe_of,
    rows_and_gradient,
)
from embconform.conformance.recording import read, read_dense
from embconform.reference.dtypes import Array

_CLAUSE: Final = "state.many-calls"
CALLS: Final = 130
"""Over 128, so that a counter of seven bits comes round."""
MOST_CALLS: Final = 600
"""A larger number in a target's code is taken to count something else."""
FEW: Final = 24
EACH: Final = 16
"""Calls from one gradient to the next."""
HEIGHT, WIDTH = 61, 3
COLD: Final = 12
"""Rows that no call names, as most of a vocabulary are cold."""
LARGE: Final = (68, 241)
"""Indices and columns of an output of 64 KiB and more, which a pool may keep."""
TURNS: Final = 5
"""Calls of one shape whose large outputs are held."""
BLOCK: Final = 1_030
"""Indices in one order and another: more than a kernel's block has."""
Call = tuple[Lookup, Any, Any]
"""What was looked up, the indices and the output."""


def _often(lab: Lab) -> Iterator[Trial]:
    yield partial(_held, lab, "no_grad", _calls(lab))
    if lab.backend.compiled or lab.backend.interpreter:
        return  # each structure costs seconds there, or each call a good part of one
    yield partial(_held, lab, "inference", FEW)
    yield partial(_held, lab, "frozen", FEW)
    if "gradient" in lab.able:
        yield partial(_held, lab, "grad", _calls(lab))
        if "sparse" in lab.able:
            yield partial(_held, lab, "grad", FEW, sparse=True)
    if len(_dtypes(lab)) > 1:
        yield partial(_in_turn, lab)
    for mode in lab.modes:
        yield partial(_large_held, lab, mode)
        for size in (MANY, BLOCK):
            yield partial(_reordered, lab, mode, size)


def _calls(lab: Lab) -> int:
    """Count the calls: more than any number in the target's code that may count them."""
    return max([CALLS, *(number + 2 for number in lab.backend.constants if number <= MOST_CALLS)])


def _table(lab: Lab, dtype: Any = np.float32) -> Array:
    """Draw a table that no smaller dtype holds, without -0 that a product with one-hot rows loses.

    Its last column is beyond float16, in bfloat16 too, and beyond float32 in float64.
    """
    values = lab.draw.standard_normal((HEIGHT, WIDTH))
    values[:, -1] *= {np.float16: 1.0, np.float64: 2.0**200}.get(dtype, 2.0**60)
    return np.asarray(values.astype(dtype))


def _size(lab: Lab) -> int:
    """Draw how many indices each call has: enough for a path for many."""
    return int(lab.draw.integers(64, 71))


def _held(lab: Lab, mode: GradMode, calls: int, *, sparse: bool = False) -> Claims:
    """Look other rows up in one table again and again, and read everything at the end.

    What was not differentiated on the way is differentiated at the end, all in one pass.
    """
    table, size = _table(lab), _size(lab)
    weight = lab.tensor(table).requires_grad_(mode == "grad")
    options = {"sparse": True} if sparse else {}
    call = lab.bind(Lookup(np.zeros(size, np.int64), table, options, lab.profile))
    kept: list[Call] = []
    gradients: list[tuple[int, Lookup, Array, Any]] = []
    waiting: list[Call] = []
    with grad_context(mode):
        for turn in range(calls):
            named = lab.draw.integers(0, HEIGHT - COLD, size)
            lookup = Lookup(named, table, options, lab.profile)
            ids = lab.tensor(lookup.ids)  # kept, or the next lie where they lay
            out = call(ids, weight)
            kept.append((lookup, ids, out))
            if weight.requires_grad and turn % EACH == 1:
                upstream, weight.grad = lab.upstream(size, WIDTH), None
                torch.autograd.backward([out], [lab.tensor(upstream)])
                gradients.append((turn, lookup, upstream, weight.grad))
            else:
                waiting.append(kept[-1])
    yield from _rows(kept, MODE_WORDS[mode])
    yield SameBits(f"the table after {calls} calls {MODE_WORDS[mode]}", to_numpy(weight), table)
    for turn, lookup, upstream, gradient in gradients:
        what = f"weight.grad for call {turn}, read after call {calls - 1}"
        yield GradientOf(what, read_dense(gradient), lookup, upstream)
    if weight.requires_grad:
        yield _gradient_of_all(lab, weight, waiting)


def _gradient_of_all(lab: Lab, weight: torch.Tensor, waiting: list[Call]) -> Claim:
    """Differentiate the calls that were not yet, all of them in one pass."""
    upstreams, weight.grad = [lab.upstream(*lookup.shape) for lookup, _, _ in waiting], None
    given = [lab.tensor(upstream) for upstream in upstreams]
    torch.autograd.backward([out for _, _, out in waiting], given)
    whole = replace(waiting[0][0], ids=np.concatenate([lookup.ids for lookup, _, _ in waiting]))
    what = f"weight.grad of {len(waiting)} calls in one pass"
    return GradientOf(what, read_dense(weight.grad), whole, np.concatenate(upstreams))


def _rows(kept: list[Call], how: str) -> Iterator[Claim]:
    for turn, (lookup, _, out) in enumerate(kept):
        told = f"{how}, {lookup.ids.size} indices each, read after the last of {len(kept)}"
        yield Rows(f"the output of call {turn} {told}", read(out), lookup)


def _dtypes(lab: Lab) -> list[Any]:
    """List the dtypes of tables that the backend has, as NumPy's scalar types."""
    names = [name for name in TABLE_DTYPES if name in lab.backend.known_dtypes]
    return [ml_dtypes.bfloat16 if name == "bfloat16" else getattr(np, name) for name in names]


def _in_turn(lab: Lab) -> Iterator[Claim]:
    """Look up in tables of one shape, of one dtype after another in every order of two."""
    size, kinds = _size(lab), _dtypes(lab)
    tables = [_table(lab, kind) for kind in kinds]
    order = [k for first, last in combinations(range(len(kinds)), 2) for k in (first, last, first)]
    for trained in (False, True) if "gradient" in lab.able else (False,):
        weights = [lab.tensor(table).requires_grad_(trained) for table in tables]
        kept: list[Call] = []
        for which in order:
            lookup = Lookup(lab.draw.integers(0, HEIGHT, size), tables[which], {}, lab.profile)
            ids = lab.tensor(lookup.ids)
            kept.append((lookup, ids, lab.bind(lookup)(ids, weights[which])))
        kind = "trained" if trained else "frozen"
        yield from _rows(kept, f"of {kind} tables of one shape and other dtypes")


def _trained(lab: Lab, mode: GradMode, table: Array) -> torch.Tensor:
    return lab.tensor(table).requires_grad_(lab.trains(mode))


def _large_held(lab: Lab, mode: GradMode) -> Iterator[Claim]:
    """Look up in calls of one shape whose outputs are large, and read all at the end."""
    size, width = LARGE
    table, kept = np.abs(lab.table(HEIGHT, width)), list[Call]()
    weight = _trained(lab, mode, table)
    with grad_context(mode):
        for _ in range(TURNS):
            lookup = Lookup(lab.draw.integers(0, HEIGHT, size), table, {}, lab.profile)
            ids = lab.tensor(lookup.ids)
            kept.append((lookup, ids, lab.bind(lookup)(ids, weight)))
    yield from _rows(kept, f"{MODE_WORDS[mode]}, of {width} columns")


def _orders(lab: Lab, size: int) -> Iterator[Array]:
    """Draw indices, and give them in one order after the other, then others of one sum."""
    ids = lab.draw.integers(1, HEIGHT - 1, size)
    yield ids
    yield ids[::-1]
    yield np.sort(ids)
    for _ in range(2):
        yield lab.draw.permutation(ids)
    inner = ids[1:-1].copy()  # the ends stay
    lab.draw.shuffle(inner)
    yield np.concatenate([ids[:1], inner, ids[-1:]])
    swapped = ids.copy()
    place = np.flatnonzero(ids != ids[0])[0]
    swapped[[0, place]] = ids[[place, 0]]
    yield swapped
    moved = ids.copy()
    moved[:2] += np.array([1, -1])  # the sum stays
    yield moved


def _reordered(lab: Lab, mode: GradMode, size: int) -> Iterator[Claim]:
    """Look the same indices up in other orders, each in a tensor of its own."""
    table = np.abs(lab.table(HEIGHT, WIDTH))
    weight = _trained(lab, mode, table)
    told = f"the indices of the calls before in another order, {MODE_WORDS[mode]}"
    for each in _orders(lab, size):
        lookup = Lookup(np.ascontiguousarray(each), table, {}, lab.profile)
        ids = lab.tensor(lookup.ids)
        if weight.requires_grad and mode == "grad":
            yield from rows_and_gradient(lab, f"{lookup}, {told}", lookup, ids, weight)
            continue
        with grad_context(mode):
            out = lab.bind(lookup)(ids, weight)
        yield Rows(f"the output for {lookup}, {told}", read(out), lookup)


MANY_CALLS_PROBE: Final = probe_of(_CLAUSE, _often, "functional")
