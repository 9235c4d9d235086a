"""Outputs of which only a view is kept, while the embedding is called again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any, Final, get_args

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, Entry, GradMode
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
    entries = [entry for entry in get_args(Entry) if getattr(lab.backend, entry) is not None]
    views = [view for view in VIEWS if lab.device == "cpu" or view != "out.numpy()"]
    modes, counts = lab.few(lab.modes), lab.few((5, MANY), slice(1))
    for way in product(modes, lab.few(views, slice(1)), counts, entries):
        yield partial(_looked_up, lab, *way)


def _looked_up(lab: Lab, mode: GradMode, view: str, count: int, entry: Entry) -> Claims:
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


def _call(lab: Lab, lookup: Lookup, entry: Entry, trained: bool) -> Callable[[torch.Tensor], Any]:
    if entry == "module":
        module: torch.nn.Module = lab.module(lookup)
        module.weight.requires_grad_(trained)
        return module
    weight, f = lab.tensor(lookup.table).requires_grad_(trained), lab.bind(lookup)
    return lambda ids: f(ids, weight)


KEPT_VIEWS_PROBE: Final = probe_of(_CLAUSE, _kept)
