"""What becomes of a gradient when its caller goes on: the buffers of one batch serve the next."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read_dense

_CLAUSE: Final = "sparse.owns-its-memory"


def _overwritten(lab: Lab) -> Iterator[Trial]:
    for lookup in lab.lookups("padding_idx"):
        if lookup.options.get("padding_idx") is None or lookup.ids.ndim:
            sparse = Lookup(
                lookup.ids, lookup.table, {**lookup.options, "sparse": True}, lookup.profile
            )
            for which in ("indices", "upstream gradient"):
                yield partial(_gradient_after, lab, sparse, which)


def _gradient_after(lab: Lab, lookup: Lookup, which: str) -> Claims:
    """Back-propagate, write into a buffer that the caller owns, and look at the gradient."""
    ids, weight = lab.tensor(lookup.ids), lab.leaf(lookup.table)
    upstream = lab.upstream(*lookup.shape)
    given = lab.tensor(upstream)
    torch.autograd.backward([lab.bind(lookup)(ids, weight)], [given])
    with torch.no_grad():
        (ids if which == "indices" else given).zero_()
    what = f"weight.grad, the {which} written to since, for {lookup}"
    yield GradientOf(what, read_dense(weight.grad), lookup, upstream)


AFTERMATH_PROBE: Final = probe_of(_CLAUSE, _overwritten, "functional", "sparse", "gradient")
