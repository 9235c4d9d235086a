"""One index tensor in tables of other heights: what is in range of one is not of another.

Nor is what was refused accepted when it is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.observe import grad_context
from embconform.conformance.probes.transforms.claims import Lookup, Rows
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import attempt, read

_CLAUSE: Final = "errors.other-table"
TALL, SHORT, WIDTH = 29, 23, 3
FEW, SOME = 7, 70


def _by_turns(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:  # each mode and layout costs seconds there
        yield partial(_refused, lab, "no_grad", FEW, False)
        return
    for mode in lab.modes:
        for size in (FEW, SOME):
            for slices in (False, True):
                yield partial(_refused, lab, mode, size, slices)


def _refused(lab: Lab, mode: GradMode, size: int, slices: bool) -> Claims:
    """Look the same tensor up in a tall table, in a short one, and in the tall one again."""
    ids = lab.draw.integers(0, SHORT, size)
    ids[size // 2] = lab.draw.integers(SHORT, TALL)
    table = np.abs(lab.table(TALL, WIDTH))  # no -0, which products with one-hot rows lose
    lookup = Lookup(ids, table, {}, lab.profile)
    given, call = lab.tensor(ids), lab.bind(lookup)
    tall = lab.tensor(table)
    short = tall[:SHORT] if slices else lab.tensor(lab.table(SHORT, WIDTH))
    for weight in (tall, short):
        weight.requires_grad_(lab.trains(mode))
    kind = "its first rows" if slices else "another table"
    told = f"{MODE_WORDS[mode]}, {size} indices"
    for turn in ("first", "second"):
        with grad_context(mode):
            out = call(given, tall)
        yield Rows(f"the output of the {turn} call {told}", read(out), lookup)
        what = f"index {ids[size // 2]} in {kind} of {SHORT} rows, after one of {TALL}, {told}"
        for again in ("", ", tried again"):
            with grad_context(mode):
                yield attempt(what + again, partial(call, given, short))


OTHER_TABLES_PROBE: Final = probe_of(_CLAUSE, _by_turns, "functional")
