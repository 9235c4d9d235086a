"""Lookups with other numbers of threads inside an operator, that the work can't be shared by."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Refused
from embconform.conformance.probes.thrift import LAST
from embconform.conformance.probes.torch_threads import torch_threads
from embconform.conformance.probes.transforms.claims import Bounded, GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import MAX_NORM, Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read, read_dense
from embconform.reference.dtypes import Array

_CLAUSE: Final = "state.thread-count"
COUNTS: Final = (1, 2, 3)
HEIGHT, WIDTH = 37, 5
GRAIN: Final = 1024
"""Indices or rows that one thread takes at least, in a loop as torch shares loops out."""


def _shared_out(lab: Lab) -> Iterator[Trial]:
    most = lab.backend.threads or max(COUNTS)
    counts = [count for count in COUNTS if count <= most]
    if len(counts) == 1:
        yield partial(_refused, counts[0])
        return
    for count in lab.few(counts, LAST):  # each is compiled anew
        yield partial(_with_threads, lab, count, _ids(lab))
        if "max_norm" in lab.able and not lab.backend.compiled:
            yield partial(_bounded, lab, count, "gradient" in lab.able and count % 2 > 0)


def _refused(count: int) -> Claims:
    yield Refused(f"the backend is run with {count} thread alone")


def _ids(lab: Lab) -> Array:
    """Draw indices, more than a grain."""
    return lab.draw.integers(0, HEIGHT, _undivided(lab, GRAIN))


def _undivided(lab: Lab, least: int) -> int:
    """Draw a number that is larger than that, and that neither 2 nor 3 divides."""
    return 6 * (least // 6 + int(lab.draw.integers(1, 30))) + int(lab.draw.choice([1, 5]))


def _with_threads(lab: Lab, count: int, ids: Array) -> Claims:
    """Look up, and differentiate where the backend does."""
    table = lab.draw.standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    lookup = Lookup(ids, table, {}, lab.profile)
    trained = "gradient" in lab.able
    weight = lab.tensor(table).requires_grad_(trained)
    told = f"{ids.size} indices with torch.set_num_threads({count})"
    upstream = lab.upstream(*lookup.shape)
    with torch_threads(count):
        out = lab.bind(lookup)(lab.tensor(ids), weight)
        if trained:
            torch.autograd.backward([out], [lab.tensor(upstream)])
    yield Rows(f"the output for {told}", read(out), lookup)
    if trained:
        yield GradientOf(f"weight.grad for {told}", read_dense(weight.grad), lookup, upstream)


def _bounded(lab: Lab, count: int, trained: bool) -> Claims:
    """Bound distinct rows, more than two grains."""
    size = _undivided(lab, 2 * GRAIN)
    table = lab.draw.standard_normal((size + 2, WIDTH)).astype(np.float32)
    ids = lab.draw.permutation(size)
    lookup = Lookup(ids, table, {"max_norm": MAX_NORM}, lab.profile)
    weight = lab.tensor(table).requires_grad_(trained)
    with torch_threads(count):
        out = lab.bind(lookup)(lab.tensor(ids), weight)
    what = f"{size} distinct indices, max_norm={MAX_NORM}, with torch.set_num_threads({count})"
    yield Bounded(f"a call for {what}", read(out), read(weight), lookup)


THREAD_COUNT_PROBE: Final = probe_of(_CLAUSE, _shared_out, "functional")
