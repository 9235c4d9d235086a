"""Run a target, or a part of its run, alone or with helpers, and write down what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Protocol

from embconform.backends.backend import Backend
from embconform.conformance.options import RunOptions
from embconform.conformance.report import Report
from embconform.conformance.results import Found, report
from embconform.conformance.running.course import Course, Done, Job, Jobs, Performer, Progress
from embconform.conformance.running.explorer import Explorer
from embconform.conformance.running.interrupt import finished
from embconform.conformance.running.known_failures import KnownFailures
from embconform.conformance.running.part import Part
from embconform.conformance.running.rounds import Rounds
from embconform.conformance.running.runner import Runner


class Helpers(Protocol):
    """Other processes that do jobs.

    Attributes
    ----------
    fingerprint : str
        Of the work, which theirs must have too.
    """

    fingerprint: str

    def work_off(
        self,
        jobs: Jobs,
        here: Callable[[Job], Done | None],
        note: Callable[[Job, Done], None],
        over: Callable[[], bool],
    ) -> None:
        """Do all jobs, here and elsewhere, and note each, until it is over."""


class Alone:
    """No other process: every job is done here."""

    fingerprint = ""

    def work_off(
        self,
        jobs: Jobs,
        here: Callable[[Job], Done | None],
        note: Callable[[Job, Done], None],
        over: Callable[[], bool],
    ) -> None:
        """Do all jobs, one after the other."""
        while not over() and (job := jobs.take()) is not None:
            if (done := here(job)) is not None:
                note(job, done)


@dataclass(frozen=True)
class Spread:
    """How a run is spread.

    Attributes
    ----------
    helpers : Helpers
    shard, of : int
        This run has every `of`-th unit of the work, beginning with number `shard`, from 1.
    before : Part or None
        What was seen before the run was cut; it goes on from there.
    known : KnownFailures or None
        Failures of earlier runs, which are replayed first; new ones are added.
    rounds : Rounds or None
        How long to go on with new seeds.
    check : callable
        Given what is found before anything is done; raises where `before` belongs to another run.
    """

    helpers: Helpers = field(default_factory=Alone)
    shard: int = 1
    of: int = 1
    before: Part | None = None
    known: KnownFailures | None = None
    rounds: Rounds | None = None
    check: Callable[[Found], None] = lambda found: None


def run(
    subject: Backend | Runner,
    options: RunOptions,
    *,
    target: str,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    spread: Spread | None = None,
) -> Report:
    """Validate a target.

    Parameters
    ----------
    subject : Backend or Runner
        A Backend is run in this process.
    options : RunOptions
    target : str
        How the user named it.
    progress : callable, optional
        Called with units of work done, units in all, and failing clauses so far.
    stop : callable, optional
        The run ends where it says yes, and the report tells so.
    spread : Spread, optional
        Which part of the work this is, and who helps; all of it, and nobody, by default.

    Returns
    -------
    Report
    """
    started, spread = perf_counter(), spread or Spread()
    explorer = Explorer(_runner(subject, options.device), options, stop)
    before = spread.before or Part()
    # what was done before is counted in units of the work, so that must be known then
    planned = spread.before is not None or finished(lambda: explorer.fingerprint, stop)
    found = Found(
        options=options,
        name=explorer.backend.name,
        able=explorer.backend.able,
        described=explorer.backend,
        environment=explorer.runner.environment,
        part=before,
        units=len(explorer.work) if planned else 0,
        fingerprint=explorer.fingerprint if planned else "",
        shard=spread.shard,
        of=spread.of,
    )
    spread.check(found)
    if not planned:
        ended = "the run was interrupted before it began"
        return report(replace(found, ended=ended, interrupted=True), target)
    spread.helpers.fingerprint = found.fingerprint
    if spread.known and not spread.before and spread.shard == 1:
        before.merge(spread.known.replay(explorer))
    rounds = spread.rounds
    if rounds:
        rounds.go(explorer, before, spread.helpers, progress)
        ended = rounds.ended
    else:
        allowed = options.seconds_allowed(compiled=explorer.backend.compiled)
        course = Course(options, explorer.clauses, found.mine, before, stop, progress, allowed)
        explore(course, explorer, spread.helpers)
        ended = course.ended
    if spread.known and not stop():
        spread.known.remember(before, options)
    seconds = perf_counter() - started
    number = rounds.number if rounds else None
    done = replace(found, ended=ended, interrupted=stop(), seconds=seconds, rounds=number)
    return report(done, target)


def explore(course: Course, explorer: Explorer, helpers: Helpers) -> None:
    """Do what is left of a course, and shrink what is broken."""
    here = Performer(explorer)
    helpers.work_off(Jobs(course.to_explore()), here, course.explored, lambda: course.over)
    course.close()
    helpers.work_off(Jobs(course.to_shrink()), here, course.shrunk, course.stop)


def _runner(subject: Backend | Runner, device: str) -> Runner:
    if not isinstance(subject, Backend):
        return subject
    from embconform.conformance.running.in_process import InProcess

    runner = InProcess(subject, device)
    runner.prepare()
    return runner


__all__: Sequence[str] = ("Alone", "Helpers", "RunOptions", "Spread", "run")
