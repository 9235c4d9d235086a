"""Derivatives of a recorded gradient by its upstream gradient: a lookup in the direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Final, TypeAlias

import numpy as np

from embconform.conformance.finding import Finding
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Claim, Must, Returned, compare
from embconform.conformance.probes.trained import WIDTH, trained
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read
from embconform.reference.dtypes import Array

_CLAUSE: Final = "gradient.third-derivative"
ROWS: Final = 7
WIDE: Final = 2**11 + 5
"""Columns of wide rows: more than two blocks of 1,024 threads have."""
BATCH, LENGTH, HEADS = 3, 4, 5
MANY: Final = 1030
"""More indices than a block of 1,024 has."""
View: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
LAYOUTS: Final[dict[str, View]] = {
    "transposed": lambda ids: ids.mT.contiguous().mT,
    "permuted": lambda ids: ids.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "stepped": lambda ids: ids.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda ids: ids[:1].expand(ids.shape),
    "contiguous": lambda ids: ids,
}


@dataclass(frozen=True, eq=False)
class Second(Claim):
    """The derivative of ``(gradient * direction).sum()`` by the upstream gradient."""

    what: str
    got: Returned
    lookup: Lookup
    direction: Array

    def judge(self) -> Finding | None:
        """Compare with the direction's rows; those of padding are 0."""
        exact = np.where(self.lookup.padded[..., None], 0.0, self.direction[self.lookup.ids])
        return compare(self.what, self.got, exact, np.zeros(exact.shape))


def _seconds(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        return  # no compiler sees a second pass
    dtypes = ("int32", "int64") if "int32" in lab.able else ("int64",)
    turns = cycle(dtypes)
    for lookup in _of_shape(lab, (BATCH, LENGTH, HEADS), WIDTH):
        for layout in LAYOUTS if "strided" in lab.able else ("contiguous",):
            yield partial(_second, lab, lookup, next(turns), layout)
    shapes = (((HEADS,), WIDE), ((), WIDTH), ((MANY,), 1))
    for shape, width in lab.fewest(shapes[:-1] if lab.backend.interpreter else shapes):
        for lookup in _of_shape(lab, shape, width):
            yield partial(_second, lab, lookup, next(turns), "contiguous")


def _of_shape(lab: Lab, shape: tuple[int, ...], width: int) -> Iterator[Lookup]:
    """Make lookups without padding, with it, and with padding counted from the end."""
    ids = np.asarray(lab.draw.integers(0, ROWS, shape))
    for options in lab.choices(ids, ROWS, "padding_idx"):
        yield Lookup(ids, lab.table(ROWS, width), options, lab.profile)


def _second(lab: Lab, lookup: Lookup, dtype: str, layout: str) -> Claims:
    """Differentiate the gradient's product with a direction, as a gradient penalty does."""
    ids = LAYOUTS[layout](lab.tensor(lookup.ids.astype(dtype)))
    seen = Lookup(ids.cpu().numpy(), lookup.table, lookup.options, lookup.profile)
    weight, f = trained(lab, seen)
    direction, given = lab.small(*seen.table.shape), lab.leaf(lab.upstream(*seen.shape))
    (gradient,) = torch.autograd.grad(f(ids), weight, given, create_graph=True)
    told = f"{seen} of {dtype}, {layout}, in {seen.table.shape[1]} columns"
    recorded = gradient.requires_grad
    yield Must(recorded, f"the gradient, recorded by create_graph=True, has no graph for {told}")
    (got,) = torch.autograd.grad((gradient * lab.tensor(direction)).sum(), given)
    what = f"the derivative of a gradient by its upstream gradient for {told}"
    yield Second(what, read(got), seen, direction)


SECOND_PASSES_PROBE: Final = probe_of(
    _CLAUSE, _seconds, "gradient", "double_backward", name="second passes", may_refuse=True
)
