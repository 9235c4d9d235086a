"""padding_idx as it comes out of an array, where vocabularies are looked up in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import (
    Claims,
    Lab,
    Trial,
    compiled_already,
    probe_of,
)
from embconform.conformance.recording import read, read_dense

_CLAUSE: Final = "padding.whole-number"
_IDS: Final = np.array([[3, 1, 3], [0, 1, 3]])
_KINDS: Final[dict[str, Callable[[int], Any]]] = {
    "numpy.int64": np.int64,
    "numpy.int32": np.int32,
    "numpy.uint8": np.uint8,
}
_OPTIONS: Final[tuple[dict[str, Any], ...]] = ({}, {"scale_grad_by_freq": True}, {"sparse": True})


def _as_found(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        yield compiled_already
        return
    for place, kind in enumerate(_KINDS):
        for padding in (3, 0):
            options = _OPTIONS[(place + padding) % 3]
            if options.keys() <= lab.able:
                for form in ("functional", "module"):
                    if form in lab.able:
                        yield partial(_differentiated, lab, kind, padding, options, form)


def _differentiated(
    lab: Lab, kind: str, padding: int, options: dict[str, Any], form: str
) -> Claims:
    """Look up and differentiate with an integer of another kind, as if it were a plain one."""
    lookup = Lookup(_IDS, np.abs(lab.table(5, 3)), {"padding_idx": padding, **options}, lab.profile)
    found = {**lookup.options, "padding_idx": _KINDS[kind](padding)}
    told = f"{lookup}, given as {kind}({padding}) to the {form},"
    ids = lab.tensor(_IDS)
    if form == "module":
        module = lab.module(replace(lookup, options=found))
        weight, out = module.weight, module(ids)
    else:
        assert lab.backend.functional is not None
        weight = lab.leaf(lookup.table)
        out = lab.backend.functional(ids, weight, **found)
    yield Rows(f"the output for {told}", read(out), lookup)
    upstream = lab.upstream(*lookup.shape)
    torch.autograd.backward([out], [lab.tensor(upstream)])
    yield GradientOf(f"weight.grad for {told}", read_dense(weight.grad), lookup, upstream)


NUMBER_KINDS_PROBE: Final = probe_of(
    _CLAUSE,
    _as_found,
    "gradient",
    "padding_idx",
    may_refuse=True,
)
