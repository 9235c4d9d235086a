"""Lookups while torch's default dtype is not the table's, as in a model loaded in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.claims import judge_records
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes import Probe
from embconform.conformance.recording import read, read_dense
from embconform.conformance.transforms_claims import Bounded, GradientOf, Lookup, Rows
from embconform.conformance.transforms_common import Claims, Lab, Trial, observe_check
from embconform.reference.dtypes import Array

_CLAUSE: Final = "state.default-dtype"
DEFAULTS: Final = ("bfloat16", "float16", "float64")
OFTEN: Final = 2_100
"""Times that an index occurs: neither bfloat16 counts as far, nor float16."""
ROWS, WIDTH = 5, 3


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set torch's default dtype for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _under_other_defaults(lab: Lab) -> Iterator[Trial]:
    few = lab.backend.compiled or lab.backend.interpreter  # a call costs much there
    for default in DEFAULTS[: 1 if few else None]:
        ids = _ids(lab)
        for options in list(lab.choices(ids, ROWS, "padding_idx", "scale_grad_by_freq"))[
            -2 if few else 0 :
        ]:
            yield partial(_trained, lab, default, Lookup(ids, _table(lab), options, lab.profile))
        if "max_norm" in lab.able and not few:
            ids, options = lab.draw.integers(0, ROWS - 1, 7), {"max_norm": 1.5}
            yield partial(_bounded, lab, default, Lookup(ids, _table(lab), options, lab.profile))


def _ids(lab: Lab) -> Array:
    """Draw the order of an index that occurs often and of some that don't."""
    ids = np.repeat([3, 1, 0], [OFTEN, 300, 2])
    return lab.draw.permutation(ids)


def _table(lab: Lab) -> Array:
    return lab.draw.standard_normal((ROWS, WIDTH)).astype(np.float32)


def _told(lookup: Lookup, default: str) -> str:
    return f"{lookup}, under torch.set_default_dtype(torch.{default})"


def _trained(lab: Lab, default: str, lookup: Lookup) -> Claims:
    """Look up, and differentiate where the backend does."""
    trained, upstream = "gradient" in lab.able, lab.upstream(*lookup.shape)
    weight = lab.tensor(lookup.table).requires_grad_(trained)
    ids, given = lab.tensor(lookup.ids), lab.tensor(upstream)
    with default_dtype(getattr(torch, default)):
        out: Any = lab.bind(lookup)(ids, weight)
        if trained:
            torch.autograd.backward([out], [given])
    told = _told(lookup, default)
    yield Rows(f"the output for {told}", read(out), lookup)
    if trained:
        yield GradientOf(f"weight.grad for {told}", read_dense(weight.grad), lookup, upstream)


def _bounded(lab: Lab, default: str, lookup: Lookup) -> Claims:
    """Look up with max_norm."""
    ids, weight = lab.tensor(lookup.ids), lab.tensor(lookup.table)
    with default_dtype(getattr(torch, default)):
        out = lab.bind(lookup)(ids, weight)
    yield Bounded(f"a call for {_told(lookup, default)}", read(out), read(weight), lookup)


DEFAULT_DTYPE_PROBE: Final = Probe(
    _CLAUSE,
    frozenset({_CLAUSE}),
    frozenset({"functional"}),
    partial(observe_check, (_CLAUSE, _under_other_defaults)),
    judge_records,
)
