"""Indices that look as if no row came twice, and in which rows do: their shares must be added."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.trained import trained
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read, read_dense
from embconform.reference.dtypes import Array

_CLAUSE: Final = "gradient.near-permutations"
HEIGHT, WIDTH = 18, 3
LONG: Final = 600
"""Indices of the longest batch; its first half may be all that a look at a sample sees."""
GONE: Final = (8, 11, 13, 14)
TWICE: Final = (9, 10, 12, 15)
"""Four numbers, and others with the same sum, sum of squares and exclusive or."""
SENTENCES, WORDS = 3, 9


def _batches(lab: Lab) -> dict[str, Array]:
    """Make indices by what is as in a permutation of the rows, or in a part of one."""
    alike = np.arange(HEIGHT)
    alike[list(GONE)] = TWICE
    apart = np.stack([lab.draw.permutation(HEIGHT)[:WORDS] for _ in range(SENTENCES)])
    apart[1:, 0] = apart[0, -1]  # a word of the first that may come twice in another
    for sentence in apart[1:]:
        again = np.flatnonzero(sentence[1:] == sentence[0]) + 1
        sentence[again] = np.setdiff1d(np.arange(HEIGHT), sentence)[: len(again)]
    half = lab.draw.permutation(LONG)[: LONG // 2]
    return {
        "their number, sum, sum of squares and ends": lab.draw.permutation(alike),
        "their number, sum, ends and order": np.sort(alike),
        "each of the rows of indices": apart,
        "each of the columns of indices": np.ascontiguousarray(apart.T),
        "all rows of indices, which are equal": np.tile(np.arange(WORDS), (SENTENCES, 1)),
        "each third of the indices": np.concatenate(
            [lab.draw.permutation(HEIGHT) for _ in range(SENTENCES)]
        ),
        "their first half": np.concatenate([half, np.resize(half[:7], LONG // 2)]),
        "their last half": np.concatenate([np.resize(half[:7], LONG // 2), half]),
    }


def _alike(lab: Lab) -> Iterator[Trial]:
    batches = _batches(lab)
    for told in lab.few(list(batches)):
        ids = batches[told]
        height = max(HEIGHT, int(ids.max()) + 1)
        choices = list(lab.choices(ids, height, "padding_idx", "scale_grad_by_freq"))
        if "sparse" in lab.able:
            choices.append({"sparse": True})
        for options in lab.few(choices):
            lookup = Lookup(ids, np.abs(lab.table(height, WIDTH)) + 1, options, lab.profile)
            yield partial(_added, lab, told, lookup)


def _added(lab: Lab, told: str, lookup: Lookup) -> Claims:
    """Look up and differentiate."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    out = f(lab.tensor(lookup.ids))
    torch.autograd.backward([out], [lab.tensor(upstream)])
    what = f"for {lookup}, being as in a permutation by {told}"
    yield Rows(f"the output {what}", read(out), lookup)
    yield GradientOf(f"weight.grad {what}", read_dense(weight.grad), lookup, upstream)


NEAR_PERMUTATIONS_PROBE: Final = probe_of(_CLAUSE, _alike, "gradient")
