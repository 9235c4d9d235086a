"""Outputs of which only a view is kept, while the embedding is called again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context
from embconform.conformance.probes.transforms.claims import Lookup, Rows
from embconform.conformance.probes.transforms.common import MANY, Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read

_CLAUSE: Final = "state.views-of-outputs"
CALLS: Final = 6
"""More of one shape than a ring of buffers has places."""
HEIGHT, WIDTH = 40, 3
VIEWS: Final[dict[str, Callable[[torch.Tensor], Any]]] = {
    "out.detach()": lambda out: out.detach(),
    "out.data": lambda out: out.data,
    "out[:]": lambda out: out.detach()[:],
    "out.numpy()": lambda out: out.detach().numpy(),
}


def _kept(lab: Lab) -> Iterator[Trial]:
    for mode in lab.few(lab.modes):
        for view in lab.few(list(VIEWS), slice(1)):
            if lab.device == "cpu" or "numpy" not in view:
                for count in lab.few((5, MANY), slice(1)):
                    if lab.backend.functional is not None:
                        yield partial(_looked_up, lab, mode, view, count, "functional")
                    if lab.backend.module is not None:
                        yield partial(_looked_up, lab, mode, view, count, "module")


def _looked_up(lab: Lab, mode: GradMode, view: str, count: int, entry: str) -> Claims:
    """Look up again and again, and keep a view of each output alone."""
    table = np.abs(lab.table(HEIGHT, WIDTH)) + 1
    first = Lookup(np.zeros(count, np.int64), table, {}, lab.profile)
    call, kept = _call(lab, first, entry, lab.trains(mode)), []
    with grad_context(mode):
        for _ in range(CALLS):
            lookup = Lookup(lab.draw.integers(0, HEIGHT, count), table, {}, lab.profile)
            kept.append((lookup, VIEWS[view](call(lab.tensor(lookup.ids)))))
    for turn, (lookup, values) in enumerate(kept):
        what = f"{view} of call {turn} for {count} indices, {MODE_WORDS[mode]}"
        got = read(torch.as_tensor(values).reshape(lookup.shape))
        yield Rows(f"{what}, read after the last of {CALLS} calls of the {entry}", got, lookup)


def _call(lab: Lab, lookup: Lookup, entry: str, trained: bool) -> Callable[[torch.Tensor], Any]:
    if entry == "module":
        module: torch.nn.Module = lab.module(lookup)
        module.weight.requires_grad_(trained)
        return module
    weight, f = lab.tensor(lookup.table).requires_grad_(trained), lab.bind(lookup)
    return lambda ids: f(ids, weight)


KEPT_VIEWS_PROBE: Final = probe_of(_CLAUSE, _kept)
