"""Outputs that a view of the table would serve: runs, steps, one row, one row again and again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context, to_numpy
from embconform.conformance.probes.claims import SameBits
from embconform.conformance.probes.transforms.claims import Lookup, Rows
from embconform.conformance.probes.transforms.common import MANY, Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read
from embconform.reference.dtypes import Array

_CLAUSE: Final = "lookup.near-runs"
FEW, WIDTH = 6, 3


def _batches(count: int, height: int) -> dict[str, Array]:
    """Make indices whose rows are views of a table of twice as many rows, or lie apart."""
    run = np.arange(count)
    return {
        "the first rows": run,
        "a range of rows": run + count // 2,
        "the last rows": run + height - count,
        "all rows": np.arange(height),
        "a range of rows as a batch": (run + 1).reshape(2, -1),
        "every second row": np.arange(0, height, 2),
        "a range of rows, backwards": run[::-1].copy(),
        "one row": np.array([count]),
        "one row again and again": np.full(count, 2),
        "a range of rows as a batch, twice": np.stack([run, run]),
    }


def _fresh(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        return  # what a program reads from its indices it can't decide by
    for mode in lab.modes:
        for count in (FEW, MANY):
            height = 2 * count
            table = np.abs(lab.table(height, WIDTH)) + 1
            for told, ids in _batches(count, height).items():
                lookup = Lookup(ids, table, {}, lab.profile)
                yield partial(_written, lab, mode, lookup, f"{told} of {height}")


def _written(lab: Lab, mode: GradMode, lookup: Lookup, told: str) -> Claims:
    """Look up twice, write to the first output, and read everything."""
    trained = lab.trains(mode)
    weight, call = lab.tensor(lookup.table).requires_grad_(trained), lab.bind(lookup)
    with grad_context(mode):
        first, second = (call(lab.tensor(lookup.ids), weight) for _ in range(2))
    what = f"{told}, {MODE_WORDS[mode]}"
    yield Rows(f"the output for {what}", read(first), lookup)
    values = np.arange(lookup.ids.size * WIDTH, dtype=np.float32).reshape(lookup.shape)
    with torch.no_grad():
        first.detach().copy_(lab.tensor(values))
    yield SameBits(f"the output for {what}, written to,", to_numpy(first), values)
    yield SameBits(f"the table, the output for {what} written to,", to_numpy(weight), lookup.table)
    yield Rows(f"another output for {what}, the first one written to,", read(second), lookup)


FRESH_OUTPUTS_PROBE: Final = probe_of(_CLAUSE, _fresh, "functional", name="outputs of runs")
