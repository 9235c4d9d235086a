"""Derivatives of the derivative of a gradient, as a step of meta-learning with a penalty takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from embconform.conformance.finding import Finding
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Claim, Returned, compare
from embconform.conformance.probes.trained import WIDTH, trained
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read
from embconform.reference.dtypes import Array

_CLAUSE: Final = "gradient.third-derivative"
FEW: Final = 24
"""The most indices for which numbers this large are exact in float32."""


@dataclass(frozen=True, eq=False)
class OfCubes(Claim):
    """A derivative of the loss ``(out**3 * upstream).sum()``.

    The first is its gradient g; the second is that of ``(g * g).sum()``, and the third that of the
    second's sum. With s the sum of a row's upstream gradients they are 3sw², 36s²w³ and 108s²w².
    """

    what: str
    got: Returned
    lookup: Lookup
    upstream: Array
    order: int

    def judge(self) -> Finding | None:
        """Compare with the polynomial; all numbers are whole and exact."""
        total, bound = self.lookup.gradient(self.upstream)
        w = self.lookup.table.astype(np.float64)
        exact = (3 * total * w**2, 36 * total**2 * w**3, 108 * total**2 * w**2)[self.order - 1]
        return compare(self.what, self.got, exact, bound)


def _third(lab: Lab) -> Iterator[Trial]:
    for lookup in lab.lookups("padding_idx"):
        if lookup.ids.size <= FEW:
            table = np.sign(lab.small(len(lookup.table), WIDTH))
            yield partial(
                _derivatives, lab, lookup.into(table * np.float32(lab.draw.integers(1, 3)))
            )


def _derivatives(lab: Lab, lookup: Lookup) -> Claims:
    """Differentiate three times."""
    (weight, f), upstream = trained(lab, lookup), np.sign(lab.small(*lookup.shape))
    loss = (f(lab.tensor(lookup.ids)).pow(3) * lab.tensor(upstream)).sum()
    for order in (1, 2, 3):
        (got,) = torch.autograd.grad(loss, weight, create_graph=True)
        what = f"derivative {order} for {lookup}"
        yield OfCubes(what, read(got), lookup, upstream, order)
        loss = got.square().sum() if order == 1 else got.sum()


THIRD_DERIVATIVE_PROBE: Final = probe_of(
    _CLAUSE, _third, "gradient", "double_backward", may_refuse=True
)
