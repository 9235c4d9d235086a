"""Lookups beside steps of a graph that send no gradient, or that have saved the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Final

import numpy as np

from embconform.conformance.finding import Finding
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Claim, Returned, compare
from embconform.conformance.probes.trained import lookups, trained
from embconform.conformance.probes.transforms.claims import Bounded, GradientOf, Lookup
from embconform.conformance.probes.transforms.common import MANY, Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read, read_dense
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

HIDDEN: Final = 4
"""Positions that a tied output layer sees."""
VECTORS: Final = 16
"""Columns that are whole vectors."""


@cache
def _stop() -> Any:
    """Make a step that sends no gradient back, None, as one that quantises may."""

    class Stop(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, out: torch.Tensor) -> torch.Tensor:
            del ctx
            return out.clone()

        @staticmethod
        def backward(ctx: Any, *upstream: Any) -> Any:
            del ctx, upstream

    return Stop.apply


def _halves(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        return  # no compiler sees what follows
    for lookup in lookups(lab, "scale_grad_by_freq"):
        if lab.backend.interpreter and lookup.options:
            continue  # many indices cost seconds there
        yield partial(_stopped, lab, lookup)
        if "sparse" in lab.able and lookup.ids.ndim and lookup.options.keys() <= {"padding_idx"}:
            yield partial(_stopped, lab, replace(lookup, options=lookup.options | {"sparse": True}))


def _stopped(lab: Lab, lookup: Lookup) -> Claims:
    """Send nothing back to one of two lookups, and then to the only one."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    stop, ids = _stop(), lab.tensor(lookup.ids)
    loss = (stop(f(ids)) + f(ids)) * lab.tensor(upstream)
    loss.sum().backward()
    what = f"for {lookup}, what follows sending None back"
    told = f"weight.grad of two lookups {what} to one of them"
    yield GradientOf(told, read_dense(weight.grad), lookup, upstream)
    weight.grad = None
    stop(f(ids)).sum().backward()
    got: Any = weight.grad
    if got is not None:  # zeros are right, too
        nothing = np.zeros_like(upstream)
        yield GradientOf(f"weight.grad {what}", read_dense(got), lookup, nothing)


@dataclass(frozen=True, eq=False)
class OfHidden(Claim):
    """The gradient of what a linear layer without bias is given, whose table a lookup shares."""

    what: str
    got: Returned
    table: Array
    above: Array

    def judge(self) -> Finding | None:
        """Compare with the product by the table as it was when the layer was called."""
        exact = self.above.astype(np.float64) @ self.table.astype(np.float64)
        return compare(self.what, self.got, exact, np.zeros(exact.shape))


def _product(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return hidden @ weight.t()


def _linear(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(hidden, weight)


LAYERS: Final = {"hidden @ weight.t()": _product, "linear(hidden, weight)": _linear}


def _tied(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled or lab.profile is not Profile.TORCH or "max_norm" not in lab.able:
        return
    for lookup in lookups(lab, "scale_grad_by_freq"):
        if "max_norm" in lookup.options:
            for layer in LAYERS:
                for one in (lookup, _larger(lab, lookup)):
                    yield partial(_bounded_after_the_layer, layer, lab, one)


def _larger(lab: Lab, lookup: Lookup) -> Lookup:
    """Give a lookup of many indices, in a table of rows that vectors fill."""
    height = len(lookup.table)
    ids = lab.draw.integers(0, height, MANY)
    return replace(lookup, ids=ids, table=lab.table(height, VECTORS))


def _bounded_after_the_layer(layer: str, lab: Lab, lookup: Lookup) -> Claims:
    """Scale rows of a table that a layer has saved: its pass raises, or is right.

    Autograd sees writes in place by a tensor's version.
    """
    lookup = lookup.into(lab.small(*lookup.table.shape) * np.float32(2))  # products are exact
    height, width = lookup.table.shape
    hidden, above = lab.leaf(lab.small(HIDDEN, width)), lab.small(HIDDEN, height)
    weight, f = trained(lab, lookup)
    given = LAYERS[layer](hidden, weight)
    out = f(lab.tensor(lookup.ids))
    what = f"a call after {layer} for {lookup}"
    yield Bounded(what, read(out), read(weight), lookup)
    try:
        torch.autograd.backward([given], [lab.tensor(above)])
    except RuntimeError:
        return
    yield OfHidden(
        f"hidden's gradient of the layer, after {what}", read(hidden.grad), lookup.table, above
    )


GRAPH_END_PROBES: Final = (
    probe_of("gradient.asked-for", _halves, "gradient", name="stopped gradients"),
    probe_of("gradient.tied-table", _tied, "gradient", name="bounded after a layer"),
)
