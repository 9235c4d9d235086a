"""The entries of sparse gradients: which rows they name, and what they say of their order."""

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


def _sparse_lookups(lab: Lab) -> Iterator[Lookup]:
    """Make lookups of one axis and more: a 0-d index has a clause of its own."""
    for lookup in lookups(lab):
        if lookup.ids.ndim and "max_norm" not in lookup.options:
            yield replace(lookup, options=lookup.options | {"sparse": True})


def _masked(lab: Lab) -> Iterator[Trial]:
    for lookup in _sparse_lookups(lab):
        yield partial(_rows_named, lab, lookup)


def _rows_named(lab: Lab, lookup: Lookup) -> Claims:
    """Send zeros to half of the outputs, as a mask or a ReLU does."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    upstream.reshape(lookup.ids.size, -1)[::2] = 0.0
    torch.autograd.backward([f(lab.tensor(lookup.ids))], [lab.tensor(upstream)])
    wanted = np.unique(lookup.ids[~lookup.padded]).tolist()
    what = f"the rows that entries name for {lookup}, where half of the upstream gradient is 0"
    yield Equal(what, sorted(set(_indices(weight.grad))), wanted)


def _flagged(lab: Lab) -> Iterator[Trial]:
    for lookup in _sparse_lookups(lab):
        rising = np.sort(lookup.ids, axis=None).reshape(lookup.ids.shape)
        for ids in (rising, lookup.ids):
            yield partial(_flag_kept, lab, replace(lookup, ids=ids))


def _flag_kept(lab: Lab, lookup: Lookup) -> Claims:
    """Take the gradient by autograd.grad and in a hook: accumulating it may drop the flag."""
    upstream = lab.tensor(lab.upstream(*lookup.shape))
    for way, gradient in _gradients(lab.tensor(lookup.ids), *trained(lab, lookup), upstream):
        rows = _indices(gradient)
        ordered = all(first < second for first, second in pairwise(rows))
        told = f"the gradient that {way} gives for {lookup} says that it is coalesced"
        yield Must(ordered or not gradient.is_coalesced(), f"{told}; its entries name {rows[:8]}")


def _gradients(
    ids: torch.Tensor, weight: torch.Tensor, f: OfIndices, upstream: torch.Tensor
) -> Iterator[tuple[str, Any]]:
    yield "torch.autograd.grad", torch.autograd.grad(f(ids), weight, upstream)[0]
    seen: list[torch.Tensor] = []
    handle = weight.register_hook(seen.append)  # type: ignore[no-untyped-call]
    torch.autograd.backward([f(ids)], [upstream])
    handle.remove()
    yield "a hook of the table", seen[0]


def _indices(gradient: Any) -> list[int]:
    rows: list[int] = to_numpy(gradient._indices())[0].tolist()
    return rows


ROWS_PROBE: Final = probe_of("sparse.rows", _masked, "gradient", "sparse")
LAYOUT_PROBE: Final = probe_of("sparse.layout", _flagged, "gradient", "sparse")
