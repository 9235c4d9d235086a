"""Sparse gradients as they are given, before they are accumulated: their rows and their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, Must
from embconform.conformance.probes.trained import OfIndices, lookups, trained
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of

_CLAUSE: Final = "sparse.asked-for"


def _asked_for(lab: Lab) -> Iterator[Trial]:
    for lookup in lookups(lab):
        if lookup.ids.ndim and "max_norm" not in lookup.options:  # see sparse.scalar-index
            options = lookup.options | {"sparse": True}
            rising = np.sort(lookup.ids, axis=None).reshape(lookup.ids.shape)
            for ids in (rising, lookup.ids):
                yield partial(_given, lab, replace(lookup, ids=ids, options=options))


def _given(lab: Lab, lookup: Lookup) -> Claims:
    """Send zeros to half of the outputs, as a mask or a ReLU does; accumulating drops flags."""
    upstream = lab.upstream(*lookup.shape)
    upstream.reshape(lookup.ids.size, -1)[::2] = 0.0
    padding, wanted = (set(lookup.ids[at].tolist()) for at in (lookup.padded, ~lookup.padded))
    given = _gradients(lab.tensor(lookup.ids), *trained(lab, lookup), lab.tensor(upstream))
    for way, gradient in given:
        rows: list[int] = to_numpy(gradient._indices())[0].tolist()
        what = f"{way} for {lookup}, where half of the upstream gradient is 0"
        named = sorted({*rows} - padding)  # padding may have entries, of zeros
        yield Equal(f"the rows but padding that are named by {what}", named, sorted(wanted))
        rises = all(first < second for first, second in pairwise(rows))
        told = f"{what}, says that it is coalesced, and names {rows[:8]}"
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
