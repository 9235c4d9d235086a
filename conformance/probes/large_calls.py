"""Calls with more indices, and rows with more columns, than counters of few bits are made for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context, to_numpy
from embconform.conformance.outcome import raised_from
from embconform.conformance.probes.claims import Must, Refused, SameBits
from embconform.conformance.probes.transforms.claims import Bounded, GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import (
    FLOAT32,
    MAX_NORM,
    Claims,
    Lab,
    Trial,
    probe_of,
)
from embconform.conformance.recording import read
from embconform.reference.dtypes import Array

_CLAUSE: Final = "lookup.large-calls"
COUNT: Final = 2**20 + 9
"""Indices of the largest call: more than 20 bits count."""
WIDTH: Final = 2**15 + 33
"""Columns of the widest row: more than a short counts."""
ROWS: Final = np.array([0, 1, *range(FLOAT32 - 2, FLOAT32 + 7)])
"""Rows of a tall table that have values."""
VOCABULARY: Final = 50_257
TOKENS: Final = 40_000
"""GPT-2's rows and a batch of tokens: an index and its place take 32 bits together."""


def _large(lab: Lab) -> Iterator[Trial]:
    few = np.array([2, 0, 1])
    dtypes = ("int32", "int64") if "int32" in lab.able else ("int64",)
    slow = lab.backend.compiled or lab.backend.interpreter
    for dtype in dtypes[:1] if slow else dtypes:
        yield partial(_looked_up, lab, few.astype(dtype), WIDTH)
    if not slow:
        yield partial(_looked_up, lab, _many(lab, dtypes[0]), 1)
        text = lab.draw.integers(0, VOCABULARY, TOKENS).astype(dtypes[-1])
        yield partial(_looked_up, lab, text, 1, VOCABULARY)
        if "huge_tables" in lab.able:
            for dtype in dtypes:
                yield partial(_tall, lab, dtype, {})
                if "max_norm" in lab.able:
                    yield partial(_tall, lab, dtype, {"max_norm": MAX_NORM})


def _many(lab: Lab, dtype: str) -> Array:
    """Draw few indices, and say them again and again; the last ones are another row's."""
    ids = np.resize(lab.draw.integers(0, 4, 4_099), COUNT).astype(dtype)
    ids[-5:] = 4
    return ids


def _looked_up(lab: Lab, ids: Array, width: int, height: int = 5) -> Claims:
    """Look up without a gradient; the table may be as wide as it is looked at."""
    table = lab.table(height, width)
    table[table == 0] = 1.0  # the sign of a zero is for other clauses
    weight, lookup = lab.tensor(table), Lookup(ids, table, {}, lab.profile)
    told = f"{ids.size} indices of {ids.dtype} in a table of {height} x {width}"
    try:
        with grad_context("no_grad"):
            out = lab.bind(lookup)(lab.tensor(ids), weight)
    except Exception as error:
        if not raised_from(error).short_of_memory:
            raise
        yield Refused(f"there is too little memory for what is made of {told}")
        return
    yield Rows(f"the output for {told}", read(out), lookup)
    yield SameBits(f"the table after a call for {told}", to_numpy(weight), table)


def _tall(lab: Lab, dtype: str, options: dict[str, Any]) -> Claims:
    """Look up on both sides of what float32 counts; no more of the table is written.

    What is claimed is a lookup in these rows alone: no row beside one may be read or written.
    """
    rows, ids = lab.tensor(ROWS), np.array([5, 1, 7, 5, 8])
    table = np.abs(lab.table(len(ROWS), 1)) + 1
    lookup = Lookup(ids, table, options, lab.profile)
    weight = torch.empty(FLOAT32 + 16, 1, device=lab.device)
    weight[rows] = lab.tensor(table)
    trained = "gradient" in lab.able and not options and dtype == "int64"  # it is 64 MiB
    weight.requires_grad_(trained)
    out = lab.bind(lookup)(lab.tensor(ROWS[ids].astype(dtype)), weight)
    told = f"a call for {dtype} indices {ROWS[ids].tolist()}, {options}, in {len(weight)} rows"
    if options:
        yield Bounded(told, read(out), read(weight[rows]), lookup)
        return
    yield Rows(f"the output of {told}", read(out), lookup)
    if trained:
        upstream = lab.upstream(*lookup.shape)
        torch.autograd.backward([out], [lab.tensor(upstream)])
        grad: Any = weight.grad
        what = f"weight.grad of rows {ROWS.tolist()} after {told}"
        yield GradientOf(what, read(grad[rows]), lookup, upstream)
        beside = int(torch.count_nonzero(grad)) - int(torch.count_nonzero(grad[rows]))
        yield Must(not beside, f"other rows than those have a gradient after {told}")


LARGE_CALLS_PROBE: Final = probe_of(_CLAUSE, _large, "functional")
