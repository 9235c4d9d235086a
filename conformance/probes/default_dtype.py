"""Lookups while torch's default dtype is not the table's, as in a model loaded in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embconform.conformance.finding import Finding
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Claim, Returned, compare
from embconform.conformance.probes.transforms.claims import Lookup, Rows
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read, read_dense
from embconform.reference.dtypes import Array, format_of
from embconform.reference.oracle import Options, bound_rows

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


@dataclass(frozen=True, eq=False)
class AsUsual(Claim):
    """What a call gave under another default dtype, that it gave under the usual one as well.

    Attributes
    ----------
    what : str
    got, usual : Returned
    lookup : Lookup
    upstream : ndarray, optional
        Of a gradient, small whole numbers.
    """

    what: str
    got: Returned
    usual: Returned
    lookup: Lookup
    upstream: Array | None = None

    def judge(self) -> Finding | None:
        """Compare bits; where a right call rounds, allow each as much as that."""
        if self.usual.values is None:
            return None  # another clause's
        return compare(self.what, self.got, self.usual.values, self._slack())

    def _slack(self) -> NDArray[np.float64] | None:
        if self.upstream is not None:
            return 2 * self.lookup.gradient(self.upstream)[1]
        if "max_norm" not in self.lookup.options:
            return None
        options, table = Options(**self.lookup.options), self.lookup.table
        limit = bound_rows(table, options, self.lookup.profile, format_of("float32"))
        return 2 * np.asarray(limit.bound[self.lookup.ids])


def _under_other_defaults(lab: Lab) -> Iterator[Trial]:
    few = lab.backend.compiled or lab.backend.interpreter  # a call costs much there
    defaults = DEFAULTS[: 1 if few else None]
    ids = lab.draw.permutation(np.repeat([3, 1, 0], [OFTEN, 300, 2]))
    choices = list(lab.choices(ids, ROWS, "padding_idx", "scale_grad_by_freq"))
    if "max_norm" in lab.able and not few:
        choices.append({"max_norm": 1.5})
    for options in choices[-1:] if few else choices:
        table = lab.draw.standard_normal((ROWS, WIDTH)).astype(np.float32)
        yield partial(_compared, lab, Lookup(ids, table, options, lab.profile), defaults)


def _compared(lab: Lab, lookup: Lookup, defaults: Sequence[str]) -> Claims:
    """Make one call under the usual default dtype, and under others."""
    upstream = lab.upstream(*lookup.shape)
    output, gradient = _called(lab, lookup, upstream)
    for default in defaults:
        with default_dtype(getattr(torch, default)):
            got, learnt = _called(lab, lookup, upstream)
        told = f"{lookup}, under torch.set_default_dtype(torch.{default})"
        if not lookup.options:
            yield Rows(f"the output for {told}", got, lookup)
        yield AsUsual(f"the output for {told}", got, output, lookup)
        if gradient is not None and learnt is not None:
            yield AsUsual(f"weight.grad for {told}", learnt, gradient, lookup, upstream)


def _called(lab: Lab, lookup: Lookup, upstream: Array) -> tuple[Returned, Returned | None]:
    """Look up, and differentiate where the backend does."""
    weight = lab.tensor(lookup.table)
    ids, given = lab.tensor(lookup.ids), lab.tensor(upstream)
    if "gradient" not in lab.able or "max_norm" in lookup.options:
        return read(lab.bind(lookup)(ids, weight)), None
    out: Any = lab.bind(lookup)(ids, weight.requires_grad_())
    torch.autograd.backward([out], [given])
    return read(out), read_dense(weight.grad)


DEFAULT_DTYPE_PROBE: Final = probe_of(_CLAUSE, _under_other_defaults, "functional")
