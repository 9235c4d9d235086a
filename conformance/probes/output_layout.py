"""How outputs lie in memory: in the order of their axes, however indices and table lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.observe import grad_context
from embconform.conformance.probes.claims import Must
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.reference.dtypes import Array

_CLAUSE: Final = "lookup.contiguous-output"
HEIGHT, WIDTH = 9, 5
View = Callable[[Any], Any]
_INDICES: Final[dict[str, View]] = {
    "transposed": lambda ids: ids.transpose(0, 1),
    "as they were made": lambda ids: ids,
    "permuted": lambda ids: ids.permute(2, 0, 1),
    "turned round": lambda ids: ids.permute(2, 1, 0),
    "a transposed slice": lambda ids: ids[1].t(),
    "every second one": lambda ids: ids[:, ::2],
    "expanded": lambda ids: ids[:, :1].expand(ids.shape),
    "one of them": lambda ids: ids[0, 0, 0],
}
_TABLES: Final[dict[str, View]] = {
    "a table": lambda table: table[:HEIGHT, :WIDTH].contiguous(),
    "a transposed table": lambda table: table[:WIDTH, :HEIGHT].t(),
    "columns of a table": lambda table: table[:HEIGHT, :WIDTH],
}


def _laid_out(lab: Lab) -> Iterator[Trial]:
    base = lab.table(HEIGHT + 2, HEIGHT + 2)
    for mode in lab.few(lab.modes, slice(-1, None)):
        for indices in lab.few(list(_INDICES)):
            for table in lab.few(list(_TABLES)):
                yield partial(_contiguous, lab, mode, indices, (table, base))


def _contiguous(lab: Lab, mode: GradMode, indices: str, given: tuple[str, Array]) -> Claims:
    """Look at the strides of an output."""
    table, base = given
    ids = _INDICES[indices](lab.tensor(lab.draw.integers(0, HEIGHT, (3, 4, 2))))
    weight = _TABLES[table](lab.tensor(base)).detach()
    weight.requires_grad_(lab.trains(mode))
    lookup = Lookup(ids.cpu().numpy(), weight.detach().cpu().numpy(), {}, lab.profile)
    with grad_context(mode):
        out = lab.bind(lookup)(ids, weight)
    strides = f"strides {tuple(out.stride())} for shape {tuple(out.shape)}"
    what = f"the output for indices of shape {tuple(ids.shape)}, {indices}, into {table}"
    told = f"{what}, {MODE_WORDS[mode]}, has {strides}, must be contiguous"
    yield Must(out.is_contiguous(), told, strides, "those of a contiguous tensor")


OUTPUT_LAYOUT_PROBE: Final = probe_of(_CLAUSE, _laid_out, "functional", "strided")
