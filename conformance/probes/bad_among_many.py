"""One bad index among more than 16 bits count, which kernels share out among threads or blocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.cases.case import FROZEN, MODE_WORDS, GradMode
from embconform.conformance.observe import grad_context
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import attempt
from embconform.reference.clause import Profile

_CLAUSE: Final = "lookup.large-calls"
COUNT: Final = 2**16 + 9
HEIGHT: Final = 7
PLACES: Final = (0, COUNT // 3, COUNT // 2 + 1, -COUNT // 5, -1)


def _among_many(lab: Lab) -> Iterator[Trial]:
    if lab.device != "cpu" or lab.backend.compiled or lab.backend.interpreter:
        return  # each refusal may cost the device, and each call a good part of a second
    wrong = (HEIGHT, -1) if lab.profile is Profile.TORCH else (HEIGHT,)
    for mode in lab.modes:
        for place in PLACES:
            for bad in wrong:
                yield partial(_one_bad, lab, mode, place, bad, {})
            if "padding_idx" in lab.able:
                yield partial(_one_bad, lab, mode, place, HEIGHT, {"padding_idx": 2})


def _one_bad(lab: Lab, mode: GradMode, place: int, bad: int, options: dict[str, Any]) -> Claims:
    """Look up as many good indices, and one bad one."""
    ids, table = np.arange(COUNT) % HEIGHT, lab.table(HEIGHT, 1)
    ids[place] = bad
    lookup = Lookup(ids, table, options, lab.profile)
    weight = lab.tensor(table).requires_grad_(mode not in FROZEN and "gradient" in lab.able)
    told = f"index {bad} at {place % COUNT} of {COUNT}, {options or 'no options'}"
    given, call = lab.tensor(ids), lab.bind(lookup)
    with grad_context(mode):
        yield attempt(f"{told}, {MODE_WORDS[mode]}", partial(call, given, weight))


BAD_AMONG_MANY_PROBE: Final = probe_of(_CLAUSE, _among_many, "functional", name="bad among many")
