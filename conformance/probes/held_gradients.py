"""Lookups of one table that are made before their passes, and gradients that are all kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Any, Final

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Must
from embconform.conformance.probes.trained import lookups, trained
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read
from embconform.reference.dtypes import Array

_CLAUSE: Final = "gradient.own-memory"
LIVE: Final = 3
"""Lookups that are alive at once."""
ROUNDS: Final = ("first", "second")
HEIGHT, WIDTH = 2**13 + 3, 33
"""A table of more than a MiB in float32."""
FEW: Final = 12


def _held(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        return  # no compiler sees what is kept between passes
    small = lookups(lab, "scale_grad_by_freq")
    if lab.backend.interpreter:  # each pass costs a tenth of a second there
        every = [lookup for lookup in small if not lookup.options]
    else:
        every = [*_large(lab), *small]
    for lookup, reverse in zip(every, cycle((False, True)), strict=False):
        yield partial(_passes_apart, lab, lookup, reverse)


def _large(lab: Lab) -> Iterator[Lookup]:
    """Look few rows of a large table up, a thousandth of them."""
    table = np.abs(lab.table(HEIGHT, WIDTH)) + 1
    ids = lab.draw.integers(0, HEIGHT, FEW)
    ids[-3:] = ids[0]
    for options in lab.choices(ids, HEIGHT, "padding_idx", "scale_grad_by_freq"):
        yield Lookup(ids, table, options, lab.profile)


def _passes_apart(lab: Lab, lookup: Lookup, reverse: bool) -> Claims:
    """Look up several times, go backward from each by itself, and read when all is done."""
    weight, f = trained(lab, lookup)
    for number in ROUNDS:
        batches = [replace(lookup, ids=_others(lab, lookup)) for _ in range(LIVE)]
        upstreams = [lab.upstream(*lookup.shape) for _ in batches]
        outs = [f(lab.tensor(batch.ids)) for batch in batches]
        order = range(LIVE)[:: -1 if reverse else 1]
        given: dict[int, Any] = {}
        for k in order:
            (given[k],) = torch.autograd.grad(outs[k], weight, lab.tensor(upstreams[k]))
        how = "the last one's pass first" if reverse else "the first one's pass first"
        told = f"of {LIVE} lookups made before, {how}, in the {number} round, all being kept"
        for k in order:
            what = f"the gradient of lookup {k + 1} {told}, for {batches[k]}"
            yield from _of_rows(lab, what, given[k], batches[k], upstreams[k])


def _others(lab: Lab, lookup: Lookup) -> Array:
    """Draw as many indices, of which padding is some."""
    ids = lab.draw.permutation(lookup.ids.reshape(-1))
    shift = lab.draw.integers(0, len(lookup.table), ids.size)
    kept = lab.draw.random(ids.size) < 1 / 2
    return np.asarray(np.where(kept, ids, shift).reshape(lookup.ids.shape))


def _of_rows(lab: Lab, what: str, given: Any, lookup: Lookup, upstream: Array) -> Claims:
    """Claim the gradient, of a large table that of the rows that are looked up, and no other."""
    if len(lookup.table) < HEIGHT:
        yield GradientOf(what, read(given), lookup, upstream)
        return
    rows, ids = np.unique(lookup.ids, return_inverse=True)
    options = dict(lookup.options)
    if "padding_idx" in options:
        found = np.flatnonzero(rows == options["padding_idx"] % HEIGHT).tolist()
        del options["padding_idx"]
        options |= {"padding_idx": found[0]} if found else {}
    part = Lookup(ids.reshape(lookup.ids.shape), lookup.table[rows], options, lookup.profile)
    of_rows = given[lab.tensor(rows)]
    yield GradientOf(f"rows {rows.tolist()} of {what}", read(of_rows), part, upstream)
    beside = int(torch.count_nonzero(given)) - int(torch.count_nonzero(of_rows))
    yield Must(not beside, f"{beside} numbers of rows that are not looked up are not 0 in {what}")


HELD_GRADIENTS_PROBE: Final = probe_of(_CLAUSE, _held, "gradient", name="held gradients")
