"""Upstream gradients of batches of sequences, in every order of axes, and expanded infinities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice, permutations
from typing import Final

import numpy as np

from embconform.conformance.finding import Finding, equal
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Claim, Returned, compare
from embconform.conformance.probes.trained import lookups, trained
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read_dense

_CLAUSE: Final = "gradient.upstream-views"
HEIGHT: Final = 23
BATCH, LENGTH, WIDTH = 2, 67, 77
"""More positions and columns than a tile of 64 has, and no multiple of any tile."""
AXES: Final = tuple(permutations(range(3)))
SPREADS: Final = {"over the indices": "inf", "from one number": "nan"}


@dataclass(frozen=True, eq=False)
class Alike(Claim):
    """The gradient for an expanded upstream gradient, and that for a copy that isn't expanded."""

    what: str
    got: Returned
    copied: Returned

    def judge(self) -> Finding | None:
        """Demand the same numbers; of finite and other ones in a copy other clauses speak."""
        got, copied = self.got.values, self.copied.values
        if got is None or copied is None:
            unread = self.got if got is None else self.copied
            return compare(self.what, unread, np.zeros(unread.shape, np.float32))
        if np.array_equal(got, copied, equal_nan=True):
            return None
        if got.shape != copied.shape:
            return equal(f"the shape of {self.what}", got.shape, copied.shape)
        wrong = ~((got == copied) | (np.isnan(got) & np.isnan(copied)))
        row, column = (int(k) for k in np.argwhere(wrong)[0])
        seen, right = str(got[row, column]), str(copied[row, column])
        told = f"{self.what} at [{row}, {column}] is {seen}, but {right} if it is a copy"
        return Finding(told, seen, right)


def _laid_out(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        return  # each layout costs seconds there
    turns = cycle(AXES)
    every = _sequences(lab)
    for lookup in islice(every, 1) if lab.backend.interpreter else every:
        for axes in islice(turns, 2) if lookup.options else AXES:
            yield partial(_gradient_of_order, axes, lab, lookup)
    for lookup in lookups(lab, "scale_grad_by_freq"):
        if lab.backend.interpreter and lookup.options:
            continue
        for spread, value in SPREADS.items():
            if lookup.options.keys() <= {"padding_idx"} or value == "inf":
                yield partial(_gradient_of_expanded, spread, lab, lookup)


def _sequences(lab: Lab) -> Iterator[Lookup]:
    """Make lookups of a batch of sequences, with sparse gradients too."""
    ids, table = lab.draw.integers(0, HEIGHT, (BATCH, LENGTH)), np.abs(lab.table(HEIGHT, WIDTH)) + 1
    for options in lab.choices(ids, HEIGHT, "padding_idx", "scale_grad_by_freq"):
        lookup = Lookup(ids, table, options, lab.profile)
        yield lookup
        if "sparse" in lab.able and options.keys() <= {"padding_idx"}:
            yield replace(lookup, options=options | {"sparse": True})


def _gradient_of_order(axes: tuple[int, ...], lab: Lab, lookup: Lookup) -> Claims:
    """Lay the upstream gradient out as a layer over time, or one that swaps axes, sends it."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    back = np.argsort(axes).tolist()
    given = lab.tensor(upstream).permute(axes).contiguous().permute(back)
    torch.autograd.backward([f(lab.tensor(lookup.ids))], [given])
    what = f"weight.grad for {lookup}, the axes of the upstream gradient lying in order {axes}"
    yield GradientOf(what, read_dense(weight.grad), lookup, upstream)


def _gradient_of_expanded(spread: str, lab: Lab, lookup: Lookup) -> Claims:
    """Expand one infinite row, as a sum or a mean sends it, over the indices."""
    (weight, f), shape = trained(lab, lookup), lookup.shape
    if spread == "over the indices":
        infinite = np.where(np.arange(shape[-1]) % 2, np.inf, -np.inf).astype(np.float32)
    else:
        infinite = np.asarray(np.nan, np.float32)
    given, grads = lab.tensor(infinite).expand(shape), []
    for upstream in (given, given.contiguous()):
        torch.autograd.backward([f(lab.tensor(lookup.ids))], [upstream])
        grads.append(read_dense(weight.grad))
        weight.grad = None
    what = f"weight.grad for {lookup}, the upstream gradient being {infinite.tolist()}, expanded"
    yield Alike(f"{what} {spread},", *grads)


UPSTREAM_LAYOUTS_PROBE: Final = probe_of(_CLAUSE, _laid_out, "gradient", name="upstream layouts")
