"""Calls in a process that was forked after others, as the workers of a DataLoader are."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from functools import partial
from select import select
from time import monotonic
from typing import Any, Final

import numpy as np
import psutil

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context
from embconform.conformance.outcome import Raised, raised_from
from embconform.conformance.probes.claims import Must, Refused, Returned
from embconform.conformance.probes.transforms.claims import Lookup, Rows
from embconform.conformance.probes.transforms.common import MANY, Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read

_CLAUSE: Final = "state.forked"
SIZES: Final = (7, MANY, 4_200, 2**16 + 9)
"""Numbers of indices: few, and as many as are shared out among threads."""
HEIGHT: Final = 23
LIMIT: Final = 8.0
"""Seconds that a child has: it needs some hundredths of one."""
_NOT_THE_TARGETS: Final = ("multiprocessing.resource_tracker", "embconform.conformance.isolation")
Seen = list[Returned | Raised]


def _forked(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled or lab.backend.interpreter or not hasattr(os, "fork"):
        yield _without_forks
    else:
        yield partial(_looked_up, lab)


def _without_forks() -> Claims:
    yield Refused("compilers have threads of their own, and Windows has no forks")


def _looked_up(lab: Lab) -> Claims:
    """Look up, fork, and look the same up in the child, and then in the parent.

    A target that asks processes of its own would be asked by two at once.
    """
    modes: tuple[GradMode, ...] = lab.modes
    table = np.abs(lab.table(HEIGHT, 1)) + 1
    lookups = [
        (mode, Lookup(lab.draw.integers(0, HEIGHT, size), table, {}, lab.profile))
        for size in SIZES
        for mode in modes
    ]
    each = partial(_each, lab, lookups)
    told = [f"{lookup} {MODE_WORDS[mode]}" for mode, lookup in lookups]
    yield from _right("before a fork", told, lookups, each())
    if not all(map(_is_no_targets, psutil.Process().children())):
        yield Refused("the target has processes of its own, which answer the one that made them")
        return
    seen = _in_a_child(each)
    made = f"{len(seen or [])} of {len(lookups)} calls"
    yield Must(
        seen is not None, f"a forked process made no calls, but hung for {LIMIT:g} s or died", made
    )
    yield from _right("in a process that was forked after calls", told, lookups, seen or [])
    yield from _right("after a fork", told, lookups, each())


def _is_no_targets(child: psutil.Process) -> bool:
    """Tell whether a process is one that Python or this suite has started, or has ended."""
    try:
        command = " ".join(child.cmdline())
    except psutil.Error:
        return True
    return not command or any(name in command for name in _NOT_THE_TARGETS)


def _right(
    where: str, told: list[str], lookups: list[tuple[GradMode, Lookup]], seen: Seen
) -> Claims:
    for what, (_, lookup), one in zip(told, lookups, seen, strict=False):
        if isinstance(one, Raised):
            yield Must(False, f"a call for {what} raised {one} {where}", str(one), "no exception")
        else:
            yield Rows(f"the output for {what}, {where},", one, lookup)


def _each(lab: Lab, lookups: list[tuple[GradMode, Lookup]]) -> Seen:
    """Make every call."""
    seen: Seen = []
    for mode, lookup in lookups:
        weight: Any = lab.tensor(lookup.table).requires_grad_(mode == "grad")
        try:
            with grad_context(mode):
                seen.append(read(lab.bind(lookup)(lab.tensor(lookup.ids), weight)))
        except (Exception, SystemExit) as error:
            seen.append(raised_from(error))
    return seen


def _in_a_child(work: Callable[[], Seen]) -> Seen | None:
    """Do some work in a forked process; None where it gives no answer in time."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            torch.set_num_threads(1)  # as a worker of a DataLoader does: OpenMP's don't survive
            with os.fdopen(writer, "wb") as out:
                pickle.dump(work(), out)
        finally:
            os._exit(0)  # nothing of the parent's is flushed or run
    os.close(writer)
    try:
        answer = _answer(reader)
        return pickle.loads(answer) if answer else None
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _answer(reader: int) -> bytes:
    """Read to the end; nothing where that does not come in time."""
    parts, until = list[bytes](), monotonic() + LIMIT
    while select([reader], [], [], max(0.0, until - monotonic()))[0]:
        part = os.read(reader, 2**16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return b""


FORKED_PROBE: Final = probe_of(_CLAUSE, _forked, "functional")
