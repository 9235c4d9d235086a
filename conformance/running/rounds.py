"""Go on drawing new cases until a time is over: rounds of the whole work, each with its seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from embconform.conformance.running.course import Course, Jobs, Performer, Progress, Shrink
from embconform.conformance.running.explorer import Explorer
from embconform.conformance.running.interrupt import finished
from embconform.conformance.running.part import Part
from embconform.conformance.running.tally import Shrunk

if TYPE_CHECKING:
    from embconform.conformance.running.engine import Helpers

SEEDS: Final = 2**63


@dataclass(frozen=True)
class Beat:
    """How far a run in rounds is.

    Attributes
    ----------
    rounds : int
        Rounds that are over.
    seed : int
        The last one's.
    cases, broken : int
        Cases so far, and clauses that count and are broken.
    seconds : float
        Time so far.
    """

    rounds: int
    seed: int
    cases: int
    broken: int
    seconds: float


@dataclass
class Rounds:
    """How long to go on, and who hears of it.

    Attributes
    ----------
    seconds : float
    heartbeat : callable
        Called after each round.
    number : int
        Rounds that were finished.
    ended : str
        Why the last round ended before its time; empty where only the time was over.
    """

    seconds: float
    heartbeat: Callable[[Beat], None]
    number: int = 0
    ended: str = ""

    def go(
        self,
        explorer: Explorer,
        total: Part,
        helpers: Helpers,
        progress: Progress | None,
    ) -> None:
        """Run rounds and add what they see.

        Parameters
        ----------
        explorer : Explorer
            Of the first round.
        total : Part
            What was seen before, such as replays.
        helpers : Helpers
        progress : callable, optional
        """
        started = monotonic()
        options, stop, first = explorer.options, explorer.stop, explorer.options.seed
        declared = {row.clause for row in options.deviations}
        over = _Limit(stop, started + self.seconds)
        shrunk: set[str] = set()
        while not over():
            seed = (first + self.number) % SEEDS
            explorer = replace(explorer, options=replace(options, seed=seed), stop=over)
            if not finished(partial(getattr, explorer, "work"), stop):
                break
            part = self._round(explorer, helpers, progress, shrunk)
            part.done.clear()
            total.merge(part)
            if over() or self.ended:
                break
            self.number += 1
            counting = total.counting(explorer.clauses, declared, strict=options.strict)
            self.heartbeat(
                Beat(self.number, seed, total.cases, len(counting), monotonic() - started)
            )
        if not (self.number or self.ended):
            self.ended = "the run was interrupted" if stop() else "the run's time was over"

    def _round(
        self, explorer: Explorer, helpers: Helpers, progress: Progress | None, shrunk: set[str]
    ) -> Part:
        """Run one round, and shrink what no earlier one has."""
        part, units = Part(), range(len(explorer.work))
        helpers.fingerprint = helpers.fingerprint or explorer.fingerprint
        allowed = explorer.options.seconds_allowed(compiled=explorer.backend.compiled)
        course = Course(
            explorer.options, explorer.clauses, units, part, explorer.stop, progress, allowed
        )
        if self.number:
            explorer.runner.renew()
        here = Performer(explorer)
        helpers.work_off(Jobs(course.to_explore()), here, course.explored, lambda: course.over)
        course.close()
        self.ended = "" if explorer.stop() else course.ended
        jobs = [job for job in course.to_shrink() if isinstance(job, Shrink)]
        fresh = Jobs(job for job in jobs if job.clause not in shrunk)
        helpers.work_off(fresh, here, course.shrunk, explorer.stop)
        for clause, tally in part.tallies.items():
            if tally.shrunk is not None:  # later rounds have other seeds, and start from what is
                shrunk.add(clause)
                tally.smallest = tally.shown(shrunk=True)
                tally.shrunk = Shrunk(None, tally.shrunk.note)
        return part


@dataclass(frozen=True)
class _Limit:
    """Whether somebody wants to stop, or the time is over."""

    stop: Callable[[], bool]
    deadline: float

    def __call__(self) -> bool:
        return self.stop() or monotonic() > self.deadline
