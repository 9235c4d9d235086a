"""What the checks of gradients amid a graph share: lookups, and tables that are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Refused
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab
from embconform.reference.clause import Profile

WIDTH: Final = 5
FACTOR: Final = 2.0
"""What tables and outputs are multiplied by: a power of two, so that nothing rounds."""
FEW: Final = 5
"""Indices of the call that tells what autograd allows."""
TALL: Final = 61
"""Rows of the table of many indices."""
OfIndices: TypeAlias = "Callable[[torch.Tensor], Any]"
LookupCheck: TypeAlias = Callable[[Lab, Lookup], Claims]


def lookups(lab: Lab, *names: str) -> Iterator[Lookup]:
    """Make lookups; those with max_norm only where the gradient passes its scale unchanged.

    A row that is looked up, and is not padding, holds zeros: its gradient is as any other.
    """
    if lab.backend.compiled:  # each lookup costs seconds there
        names = ()
    elif lab.profile is Profile.TORCH:
        names = (*names, "max_norm")
    for lookup in lab.lookups("padding_idx", *names):
        table = lab.table(len(lookup.table), WIDTH)
        table[table == 0] = 1.0  # the sign of a zero is for other clauses
        rare = np.bincount(lookup.ids.reshape(-1)).argmax() != lookup.ids
        if rare.any():
            table[lookup.ids[rare][0]] = 0.0
        yield lookup.into(table)


def many(lab: Lab, count: int, *names: str) -> Iterator[Lookup]:
    """Make lookups of a number of indices that kernels cut into blocks or tiles.

    Parameters
    ----------
    lab : Lab
    count : int
    *names : str
        Options, as :meth:`Lab.choices` takes them.
    """
    ids = lab.draw.integers(0, TALL - 1, count)
    for options in lab.choices(ids, TALL, *names):
        yield Lookup(ids, np.abs(lab.table(TALL, WIDTH)) + 1, options, lab.profile)


def trained(
    lab: Lab, lookup: Lookup, weight: torch.Tensor | None = None
) -> tuple[torch.Tensor, OfIndices]:
    """Make a table that is a leaf, and ``f(ids)`` of the backend that looks it up.

    Parameters
    ----------
    lab : Lab
    lookup : Lookup
    weight : Tensor, optional
        The memory of the table, which holds the lookup's.
    """
    functional, options = lab.backend.functional, lookup.options
    if functional is None:
        module = lab.module(lookup)
        if weight is not None:
            module.weight = torch.nn.Parameter(weight)
        return module.weight, module
    leaf = lab.leaf(lookup.table) if weight is None else weight.detach().requires_grad_()
    return leaf, lambda ids: functional(ids, leaf, **options)


def where_allowed(
    lab: Lab, lookup: Lookup, check: LookupCheck, plain: LookupCheck | None = None
) -> Claims:
    """Check, unless autograd refuses the same to few indices without options, which is loud."""
    few = lookup.ids[:FEW] if lookup.ids.ndim else lookup.ids
    try:
        for _ in (plain or check)(lab, replace(lookup, ids=few, options={})):
            pass
    except RuntimeError as error:
        yield Refused(f"without options it raises {error}")
    else:
        yield from check(lab, lookup)
