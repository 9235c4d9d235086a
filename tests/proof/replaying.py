"""Many targets put through the same cases: what is drawn for one is kept for the next."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import cached_property
from typing import Final

from hypothesis import Phase

from embconform.backends.constants import own_sizes
from embconform.conformance.cases.structure import NEAR
from embconform.conformance.options import BUDGETS
from embconform.conformance.running.driver import Batch, Body, Driver
from embconform.conformance.running.explorer import Explorer
from embconform.conformance.running.work import Draws, Unit
from embconform.reference.clause import Profile

MOST: Final = 2**28
"""Bytes of cases that are kept; those of further strata are drawn anew for each target."""

_Run = tuple[Profile, int, bool, bool]
_Drawn = list[Batch]


class _Kept:
    """The cases of one run's strata."""

    def __init__(self) -> None:
        self.run: _Run | None = None
        self.drawn: dict[Draws, _Drawn] = {}
        self.size = 0

    def of(self, run: _Run) -> dict[Draws, _Drawn]:
        """Give what is kept of a run, and forget another one's."""
        if self.run != run:
            self.run, self.drawn, self.size = run, {}, 0
        return self.drawn

    def keep(self, draws: Draws, drawn: _Drawn) -> None:
        """Keep cases while there is room."""
        self.size += sum(case.nbytes for batch in drawn for case, _ in batch)
        if self.size <= MOST:
            self.drawn[draws] = drawn


_KEPT: dict[Profile, _Kept] = {profile: _Kept() for profile in Profile}


class ReplayingDriver(Driver):
    """A driver that draws cases once for all targets of its process.

    They depend on the options and on how the target is compiled, not on the target; the ones
    that are kept are those of the last seed of each profile.
    """

    def drive(self, draws: Draws, body: Body, *phases: Phase) -> None:
        """Put cases before a function, as they were drawn before."""
        if phases != (Phase.generate,):
            super().drive(draws, body, *phases)
            return
        kept = _KEPT[self.profile]
        run = self.profile, self.seed, self.compiled, self.one_shape
        drawn = kept.of(run).get(draws)
        if drawn is None:
            drawn = []
            super().drive(draws, drawn.append, *phases)
            if not any(NEAR in structure.size for structure in draws.structures):
                kept.keep(draws, drawn)  # the others are one target's own
        for batch in drawn:
            body(batch)


_WORK: dict[Hashable, list[Unit]] = {}
_RUNS: Final = 8
"""Runs whose work is kept: of both profiles, both forms and both budgets."""


class ReplayingExplorer(Explorer):
    """An explorer of one of many targets, most of which can do the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        own = self.driver
        self.driver = ReplayingDriver(own.profile, own.seed, own.compiled, own.one_shape)

    @cached_property
    def work(self) -> list[Unit]:
        """What another target's work is that can do the same."""
        options, backend = replace(self.options, strict=False), self.backend
        able = backend.able, backend.capabilities.dtypes, backend.capabilities.index_dtypes
        own = tuple(own_sizes(backend, BUDGETS[options.budget].constants))
        key = options, self.wanted, able, own, backend.compiled, backend.sizes_compiled
        if key not in _WORK:
            if len(_WORK) == _RUNS:
                _WORK.pop(next(iter(_WORK)))
            _WORK[key] = super().work
        return _WORK[key]
