"""Indices of more axes than a kernel has strides for, of which some are sliced or permuted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any, Final, TypeAlias

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, GradMode
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

_CLAUSE: Final = "lookup.views-apart"
SHAPES: Final = ((3, 2, 3, 2, 3), (2, 3, 2, 2, 3, 2))
ROWS, WIDTH = 9, 2
View: TypeAlias = "Callable[[Any], Any]"


def _views(axes: int) -> dict[str, View]:
    """List views of a tensor: each axis cut or with steps, neighbours swapped, all reversed."""
    views: dict[str, View] = {"turned round": lambda ids: ids.permute(*reversed(range(axes)))}
    for axis in range(axes):
        for told, part in (("cut", slice(1, None)), ("with steps", slice(None, None, 2))):
            at = (slice(None),) * axis + (part,)
            views[f"whose axis {axis} is {told}"] = itemgetter(at)
        views[f"whose axis {axis} is repeated"] = partial(_repeated, axis=axis)
    for axis in range(axes - 1):
        views[f"whose axes {axis} and {axis + 1} are swapped"] = partial(_swapped, axis=axis)
    return views


def _repeated(ids: Any, *, axis: int) -> Any:
    return ids.narrow(axis, 0, 1).expand(ids.shape)


def _swapped(ids: Any, *, axis: int) -> Any:
    return ids.transpose(axis, axis + 1)


def _many_axes(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        return  # each view is another program
    modes: tuple[GradMode, ...] = ("no_grad", *(("grad",) if "gradient" in lab.able else ()))
    for shape in SHAPES:
        for told, view in _views(len(shape)).items():
            for mode in modes if shape is SHAPES[0] else modes[:1]:
                yield partial(_looked_up, lab, mode, shape, told, view)


def _looked_up(lab: Lab, mode: GradMode, shape: tuple[int, ...], told: str, view: View) -> Claims:
    ids = view(lab.tensor(lab.draw.integers(0, ROWS, shape)))
    lookup = Lookup(to_numpy(ids), np.abs(lab.table(ROWS, WIDTH)) + 1, {}, lab.profile)
    what = f"indices that are a tensor of shape {shape} {told}, {MODE_WORDS[mode]}"
    if mode == "grad":
        yield from rows_and_gradient(lab, what, lookup, ids, lab.leaf(lookup.table))
        return
    with grad_context(mode):
        out = lab.bind(lookup)(ids, lab.tensor(lookup.table))
    yield Rows(f"the output for {what}", read(out), lookup)


MANY_AXES_PROBE: Final = probe_of(_CLAUSE, _many_axes, "functional", "strided", name="many axes")
