"""A bad index where nobody looks any more: among very many good ones, or after many good calls."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.observe import grad_context
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import attempt
from embconform.reference.clause import Profile

_CLAUSE: Final = "errors.other-table"
COUNT: Final = 2**16 + 9
"""Indices of a call that kernels share out among threads or blocks."""
CALLS: Final = 1_030
"""Good calls in a row: more than a hundred, a thousand or ten bits."""
HEIGHT: Final = 7
PLACES: Final = (0, COUNT // 3, COUNT // 2 + 1, -COUNT // 5, -1)


def _late(lab: Lab) -> Iterator[Trial]:
    if lab.device != "cpu" or lab.backend.compiled or lab.backend.interpreter:
        return  # each refusal may cost the device, and each call a good part of a second
    for mode in lab.modes:
        for place in PLACES:
            yield partial(_among_many, lab, mode, place, {})
            if "padding_idx" in lab.able:
                yield partial(_among_many, lab, mode, place, {"padding_idx": 2})
        yield partial(_after_many, lab, mode)
        for bad in (HEIGHT, -1) if lab.profile is Profile.TORCH else (HEIGHT,):
            yield partial(_refilled, lab, mode, bad)


def _table(lab: Lab, mode: GradMode) -> Any:
    trained = lab.trains(mode)
    return lab.tensor(lab.table(HEIGHT, 1)).requires_grad_(trained)


def _among_many(lab: Lab, mode: GradMode, place: int, options: dict[str, Any]) -> Claims:
    """Look up as many good indices, and one bad one."""
    ids, weight = np.arange(COUNT) % HEIGHT, _table(lab, mode)
    ids[place] = HEIGHT
    call = lab.bind(Lookup(ids, np.ones((HEIGHT, 1), np.float32), options, lab.profile))
    given, told = lab.tensor(ids), f"index {HEIGHT} at {place % COUNT} of {COUNT}"
    with grad_context(mode):
        what = f"{told}, {options or 'no options'}, {MODE_WORDS[mode]}"
        yield attempt(what, partial(call, given, weight))


def _after_many(lab: Lab, mode: GradMode) -> Claims:
    """Look good indices up again and again, then bad ones."""
    ids, weight = lab.draw.integers(0, HEIGHT, 5), _table(lab, mode)
    call = lab.bind(Lookup(ids, np.ones((HEIGHT, 1), np.float32), {}, lab.profile))
    good, bad = lab.tensor(ids), lab.tensor(np.append(ids[1:], HEIGHT))
    with grad_context(mode):
        for _ in range(CALLS):
            call(good, weight)
        what = f"index {HEIGHT} after {CALLS} good calls, {MODE_WORDS[mode]}"
        yield attempt(what, partial(call, bad, weight))


def _refilled(lab: Lab, mode: GradMode, bad: int) -> Claims:
    """Look good indices up, then others that were written to their memory, all in one mode.

    What is made in inference mode has no version that would tell of the write.
    """
    ids, weight = lab.draw.integers(0, HEIGHT, 5), _table(lab, mode)
    call = lab.bind(Lookup(ids, np.ones((HEIGHT, 1), np.float32), {}, lab.profile))
    with grad_context(mode):
        if not _refuses(call, lab.tensor(np.append(ids[1:], bad)), weight):
            return  # at once, as errors.negative tells
        given = lab.tensor(ids).clone()
        for _ in range(2):
            call(given, weight)
        given.copy_(lab.tensor(np.append(ids[1:], bad)))
        what = f"index {bad}, written to indices that were good, {MODE_WORDS[mode]}"
        yield attempt(what, partial(call, given, weight))


def _refuses(call: Any, ids: Any, weight: Any) -> bool:
    try:
        call(ids, weight)
    except Exception:
        return True
    return False


LATE_ERRORS_PROBE: Final = probe_of(_CLAUSE, _late, "functional", name="late errors")
