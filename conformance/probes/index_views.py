"""Views of one index tensor, looked up one after the other: same address, other indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context, to_numpy
from embconform.conformance.probes.transforms.claims import Lookup, Rows
from embconform.conformance.probes.transforms.common import (
    Claims,
    Lab,
    Trial,
    probe_of,
    rows_and_gradient,
)
from embconform.conformance.recording import read
from embconform.reference.dtypes import Array

_CLAUSE: Final = "lookup.views-apart"
View: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
_CONTIGUOUS: Final[dict[str, View]] = {
    "ids": lambda ids: ids,
    "ids.view(2, 8)": lambda ids: ids.view(2, 8),
    "ids[:2]": lambda ids: ids[:2],
    "ids.view(-1)": lambda ids: ids.view(-1),
    "ids[1:]": lambda ids: ids[1:],
}
_STRIDED: Final[dict[str, View]] = {
    "ids.t()": lambda ids: ids.t(),
    "ids[:, :2]": lambda ids: ids[:, :2],
    "ids[:, ::2]": lambda ids: ids[:, ::2],
    "ids[:2].t()": lambda ids: ids[:2].t(),
    "ids[:1].expand(4, 4)": lambda ids: ids[:1].expand(4, 4),
}
_HALVES: Final = ("ids[:2]", "ids[:, :2]", "ids[:, ::2]")
ROWS: Final = 7


def _views_apart(lab: Lab) -> Iterator[Trial]:
    modes: tuple[GradMode, ...] = ("no_grad", "served")
    if "gradient" in lab.able:
        modes = ("grad", *modes)
    for mode in lab.few(modes):
        yield partial(_one_after_the_other, lab, mode)
        if not lab.backend.compiled and "strided" in lab.able:
            for options in lab.choices(
                np.zeros(1, np.int64), ROWS, "padding_idx", "scale_grad_by_freq"
            ):
                yield partial(_halves, lab, mode, options)


def _drawn(lab: Lab, mode: GradMode) -> tuple[Array, torch.Tensor, torch.Tensor]:
    """Draw a table, as an array and as a tensor, and indices into it."""
    table = lab.table(ROWS, 3)
    base = lab.tensor(lab.draw.integers(0, ROWS, (4, 4)))
    trained = lab.trains(mode)
    return table, lab.tensor(table).requires_grad_(trained), base


def _one_after_the_other(lab: Lab, mode: GradMode) -> Claims:
    """Look up every view, and the whole before and after each."""
    views = _CONTIGUOUS | (_STRIDED if "strided" in lab.able else {})
    (table, weight, base), before = _drawn(lab, mode), "nothing"
    for name, view in lab.fewest(list(views.items()), slice(1, 8, 2)):
        for told, ids in (("ids", base), (name, view(base))):
            lookup = Lookup(to_numpy(ids), table, {}, lab.profile)
            yield from _called(lab, f"{told} after {before}", mode, (ids, weight), lookup)
            before = told


def _halves(lab: Lab, mode: GradMode, options: dict[str, Any]) -> Claims:
    """Look up halves that begin at one address and have as many indices, one after the other."""
    (table, weight, base), before = _drawn(lab, mode), "nothing"
    for name in (*_HALVES, *reversed(_HALVES)):
        ids = (_CONTIGUOUS | _STRIDED)[name](base)
        lookup = Lookup(to_numpy(ids), table, options, lab.profile)
        yield from _called(lab, f"{lookup}, {name} after {before},", mode, (ids, weight), lookup)
        before = name


def _called(lab: Lab, told: str, mode: GradMode, given: tuple[Any, Any], lookup: Lookup) -> Claims:
    what = f"{told} {MODE_WORDS[mode]}, ids being a 4 x 4 tensor"
    if mode == "grad":
        yield from rows_and_gradient(lab, what, lookup, *given)
        return
    with grad_context(mode):
        out = lab.bind(lookup)(*given)
    yield Rows(f"the output for {what}", read(out), lookup)


VIEWS_PROBE: Final = probe_of(_CLAUSE, _views_apart, "functional")
