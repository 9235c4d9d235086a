"""Indices that look like a range of rows, as positions are, and are none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.observe import grad_context
from embconform.conformance.probes.transforms.claims import Lookup, Rows
from embconform.conformance.probes.transforms.common import (
    MANY,
    Claims,
    Lab,
    Trial,
    probe_of,
)
from embconform.conformance.recording import read
from embconform.reference.dtypes import Array

_CLAUSE: Final = "lookup.near-runs"
FEW: Final = 9
BATCH: Final = 2
WIDTH: Final = 3


def _nearly(count: int, lab: Lab) -> dict[str, Array]:
    """Make a range of `count` rows, and what is nearly one, by what is as in a range."""
    run = np.arange(count) + int(lab.draw.integers(1, 4))
    middle = count // 2
    swapped, repeated, late = run.copy(), run.copy(), run.copy()
    swapped[[middle - 1, middle + 1]] = run[[middle + 1, middle - 1]]
    repeated[middle - 1 : middle + 2] = run[middle]
    late[-1] = run[0]
    mixed = run.copy()
    mixed[1:-1] = lab.draw.permutation(run[1:-1])
    return {
        "everything": run,
        "their ends and sum": mixed,
        "all but two of them": swapped,
        "their order, ends and sum": repeated,
        "all but the last": late,
        "their steps but one": np.concatenate([run[:middle], run[middle:] + 1]),
        "their steps backwards": run[::-1].copy(),
    }


def _near(lab: Lab) -> Iterator[Trial]:
    for mode in lab.few(lab.modes):
        for count in lab.few((MANY, FEW)):
            yield partial(_looked_up, lab, mode, count)


def _looked_up(lab: Lab, mode: GradMode, count: int) -> Claims:
    """Look up the range itself, and then what is nearly one; as a batch too."""
    batches = _nearly(count, lab)
    table = lab.table(count + 6, WIDTH)
    weight = lab.tensor(table).requires_grad_(lab.trains(mode))
    for told, ids in batches.items():
        for each in _shapes(lab, batches["everything"], ids):
            lookup = Lookup(each, table, {}, lab.profile)
            with grad_context(mode):
                out = lab.bind(lookup)(lab.tensor(each), weight)
            shape = f"a row of a batch of {len(each)}" if each.ndim == BATCH else f"{count} indices"
            what = f"{shape} with {told} as in a range of rows, {MODE_WORDS[mode]}"
            yield Rows(f"the output for {what}", read(out), lookup)


def _shapes(lab: Lab, run: Array, ids: Array) -> list[Array]:
    """Give indices by themselves, after a range, and between equal ranges, as packed ones are."""
    shapes = [ids] if lab.backend.sizes_compiled else [ids, np.stack([run, ids])]
    between = [np.stack([run, ids, run]), np.stack([run, run, ids, ids[::-1], run])]
    return shapes if lab.backend.compiled else [*shapes, *between]


NEAR_RUNS_PROBE: Final = probe_of(_CLAUSE, _near)
