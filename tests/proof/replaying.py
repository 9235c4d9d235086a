"""Many targets put through the same cases: what is drawn for one is kept for the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from hypothesis import Phase

from embconform.conformance.case import Call, Case, DoubleBackward
from embconform.conformance.explorer import Explorer
from embconform.conformance.work import Draws
from embconform.reference.clause import Profile

MOST: Final = 2**28
"""Bytes of cases that are kept; those of further strata are drawn anew for each target."""

_Run = tuple[Profile, int, bool]


class _Kept:
    """The cases of one run's strata."""

    def __init__(self) -> None:
        self.run: _Run | None = None
        self.cases: dict[Draws, list[Case]] = {}
        self.size = 0

    def of(self, run: _Run) -> dict[Draws, list[Case]]:
        """Give what is kept of a run, and forget another one's."""
        if self.run != run:
            self.run, self.cases, self.size = run, {}, 0
        return self.cases

    def keep(self, draws: Draws, cases: list[Case]) -> None:
        """Keep a stratum's cases while there is room."""
        self.size += sum(map(_size, cases))
        if self.size <= MOST:
            self.cases[draws] = cases


_KEPT: dict[Profile, _Kept] = {profile: _Kept() for profile in Profile}


def _size(case: Case) -> int:
    """Estimate the bytes of a case: its table, and per call its indices and upstream gradient."""
    calls = sum(isinstance(step, Call | DoubleBackward) for step in case.steps)
    width = case.weight.values.shape[-1] if case.weight.values.ndim else 1
    indices = case.most_indices * (8 + 8 * width)
    return int(np.size(case.weight.values) * 8 * (1 + len(case.steps)) + calls * indices) + 2000


class ReplayingExplorer(Explorer):
    """An explorer that draws a stratum's cases once for all targets of its process.

    The cases depend on the options and on whether the target is compiled, not on the target; the
    ones that were kept are those of the last seed of each profile.
    """

    def _drive(self, draws: Draws, phases: tuple[Phase, ...], body: Callable[[Case], None]) -> None:
        if phases != (Phase.generate,):
            super()._drive(draws, phases, body)
            return
        options = self.options
        kept = _KEPT[options.profile]
        run = options.profile, options.seed, self.backend.compiled
        cases = kept.of(run).get(draws)
        if cases is None:
            cases = []
            super()._drive(draws, phases, cases.append)
            kept.keep(draws, cases)
        for case in cases:
            body(case)
