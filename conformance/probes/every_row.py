"""Gradients of whole vocabularies: each row is named, or each number of bits is used up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any, Final

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.trained import trained
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read, read_dense
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

_CLAUSE: Final = "lookup.large-calls"
HEIGHT: Final = 2**13 + 9
"""Rows of a table that is cut into shards of any power of two, the last one being small."""
AGAIN: Final = 300
PADDINGS: Final = (5, 2**12 - 1, -3)
"""In the first shard of any size, at the end of one, and in the last."""
PACKED: Final = (2**8, 2**15 + 9, 2**16)
"""Rows of tables whose indices fit into bytes or shorts, if these have no sign."""
MANY: Final = 4_100


def _lookup(lab: Lab, ids: Array, height: int, options: dict[str, Any]) -> Lookup:
    return Lookup(ids, np.abs(lab.table(height, 1)) + 1, options, lab.profile)


def _each(lab: Lab, *, plain: bool) -> Iterator[dict[str, Any]]:
    """List ways to train: as a sum, divided by counts, or as sparse entries."""
    yield from [{}] * plain
    for name in ("scale_grad_by_freq", "sparse"):
        if name in lab.able:
            yield {name: True}


def _padding_of_shards(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled or lab.backend.interpreter:
        return
    ids = np.append(lab.draw.permutation(HEIGHT), lab.draw.integers(0, HEIGHT, AGAIN))
    for padding, options in product(PADDINGS, _each(lab, plain=True)):
        index = padding if lab.profile is Profile.TORCH else padding % HEIGHT
        lookup = _lookup(lab, ids, HEIGHT, {"padding_idx": index, **options})
        yield partial(_differentiated, lab, lookup, "each row being named")


def _packed(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled or lab.backend.interpreter:
        return
    dtypes = ("int64", "int32") if "int32" in lab.able else ("int64",)
    for height in PACKED:
        ids = lab.draw.integers(0, height, MANY)
        ids[:9] = ids[-9:] = height - 1
        choices = list(_each(lab, plain=True))
        if "padding_idx" in lab.able:
            choices.append({"padding_idx": height - 1})
        for turn, options in enumerate(choices):
            typed = ids.astype(dtypes[turn % len(dtypes)])
            told = f"some being {height - 1}, {typed.dtype}"
            yield partial(_differentiated, lab, _lookup(lab, typed, height, options), told)


def _differentiated(lab: Lab, lookup: Lookup, told: str) -> Claims:
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    out = f(lab.tensor(lookup.ids))
    torch.autograd.backward([out], [lab.tensor(upstream)])
    yield Rows(f"the output for {lookup}, {told}", read(out), lookup)
    yield GradientOf(f"weight.grad for {lookup}, {told}", read_dense(weight.grad), lookup, upstream)


EVERY_ROW_PROBES: Final = (
    probe_of(_CLAUSE, _padding_of_shards, "gradient", "padding_idx", name="padding of shards"),
    probe_of(_CLAUSE, _packed, "gradient", name="indices in few bits"),
)
