"""Every way in which a table is written between calls, few and many rows being looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context, to_numpy
from embconform.conformance.probes.claims import SameBits
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read, read_dense
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

_CLAUSE: Final = "lookup.sees-every-write"
_LAID_OUT: Final = "weight.data = new, in another layout"
HEIGHT, WIDTH = 301, 3
Write: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], None]"


def _copy(weight: torch.Tensor, values: torch.Tensor) -> None:
    weight.copy_(values)


def _copy_of_data(weight: torch.Tensor, values: torch.Tensor) -> None:
    weight.data.copy_(values)


def _data(weight: torch.Tensor, values: torch.Tensor) -> None:
    weight.data = values


def _data_laid_out_anew(weight: torch.Tensor, values: torch.Tensor) -> None:
    """Give memory in which columns lie together where rows did, or rows where columns did."""
    weight.data = values.t().contiguous().t() if weight.is_contiguous() else values


def _step(weight: torch.Tensor, values: torch.Tensor) -> None:
    weight.mul_(0.0).add_(values)


def _rows(weight: torch.Tensor, values: torch.Tensor) -> None:
    weight[:8] = values[:8]


def _one_element(weight: torch.Tensor, values: torch.Tensor) -> None:
    weight.detach()[3, 1].fill_(values[3, 1].item())


def _changed_over(weight: torch.Tensor, values: torch.Tensor) -> None:
    """Put the rows in another order: whatever is summed over the table stays as it was."""
    del values
    weight.copy_(weight.flip(0))


WRITES: Final[dict[str, Write]] = {
    "weight.copy_(new)": _copy,
    "weight.data.copy_(new)": _copy_of_data,
    "weight.data = new": _data,
    _LAID_OUT: _data_laid_out_anew,
    "weight.mul_(0).add_(new)": _step,
    "weight[:8] = new[:8]": _rows,
    "weight.copy_(weight.flip(0))": _changed_over,
    "a write to one element of weight.detach()": _one_element,
}


def _table(lab: Lab) -> Array:
    """Draw a table; the sign of a zero is for other clauses."""
    table = lab.table(HEIGHT, WIDTH)
    table[table == 0] = 1.0
    return table


def _every_write(lab: Lab) -> Iterator[Trial]:
    modes: tuple[GradMode, ...] = ("grad", "no_grad", "frozen")
    for mode in lab.few(modes, slice(1, 2)):
        for name in WRITES:
            if name != _LAID_OUT or ("strided" in lab.able and not lab.backend.compiled):
                for parameter in lab.few((False, True)):
                    yield partial(_written, lab, mode, name, parameter)
        if not lab.backend.compiled:  # another height is another program there
            for options in _paddings(lab):
                for heights in ((5, 9), (9, 4)):
                    yield partial(_resized, lab, mode, options, heights)


def _paddings(lab: Lab) -> Iterator[dict[str, Any]]:
    """List no option, and padding that is counted from the end where the profile has it."""
    yield {}
    if "padding_idx" in lab.able:
        yield {"padding_idx": -1 if lab.profile is Profile.TORCH else 3}


def _written(lab: Lab, mode: GradMode, name: str, parameter: bool) -> Claims:
    """Look up few rows, write, look up many others and the few again; twice over."""
    few, many = np.arange(8), np.arange(20, HEIGHT)
    trained = lab.trains(mode)
    weight = lab.tensor(_table(lab)).requires_grad_(trained)
    if parameter:
        weight = torch.nn.Parameter(weight.detach(), requires_grad=trained)
    kind = " of a Parameter" * parameter
    for told, ids in (("few rows", few), ("few rows again", few)):
        yield from _called(lab, mode, weight, ids, told)
    for turn in ("first", "second"):
        with torch.no_grad():
            WRITES[name](weight, lab.tensor(_table(lab)))
        what = f"after the {turn} {name}{kind}"
        for told, ids in (("the same rows", few), ("many others", many), ("the same rows", few)):
            yield from _called(lab, mode, weight, ids, f"{told} {what}")


def _called(lab: Lab, mode: GradMode, weight: torch.Tensor, ids: Array, what: str) -> Claims:
    table = to_numpy(weight)
    lookup = Lookup(ids, table, {}, lab.profile)
    with grad_context(mode):
        out = lab.bind(lookup)(lab.tensor(ids), weight)
    told = f"{what}, {MODE_WORDS[mode]}"
    yield Rows(f"the output for {told}", read(out), lookup)
    yield SameBits(f"the table after a call for {told}", to_numpy(weight), table)


def _resized(lab: Lab, mode: GradMode, options: dict[str, Any], heights: tuple[int, int]) -> Claims:
    """Give a table more rows, as a vocabulary grows, or fewer, and look the last ones up.

    The first call is made without grad: torch keeps how high a table is with its first gradient.
    """
    trained = lab.trains(mode)
    weight = lab.tensor(_table(lab)[:1]).requires_grad_(trained)
    contexts: tuple[GradMode, GradMode] = ("no_grad", mode)
    for height, context in zip(heights, contexts, strict=True):
        table = _table(lab)[:height]
        weight.data = lab.tensor(table)
        lookup = Lookup(np.array([height - 1, 3, height - 1, 0]), table, options, lab.profile)
        call, ids = lab.bind(lookup), lab.tensor(lookup.ids)
        with grad_context(context):
            out = call(ids, weight)
        what = f"{lookup} {MODE_WORDS[context]}, weight.data having had {heights[0]} rows"
        yield Rows(f"the output for {what}", read(out), lookup)
    if trained and mode == "grad":
        upstream = lab.upstream(*lookup.shape)
        torch.autograd.backward([out], [lab.tensor(upstream)])
        yield GradientOf(f"weight.grad for {what}", read_dense(weight.grad), lookup, upstream)


WRITES_PROBE: Final = probe_of(_CLAUSE, _every_write, "functional")
