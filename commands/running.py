"""Run targets, with a progress bar where a person is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, TextIO

import click

from embconform.backends.backend import Backend, TargetError
from embconform.commands.database import open_database
from embconform.commands.planning import Plan, limits_of
from embconform.commands.request import Request
from embconform.commands.show import show
from embconform.conformance.quiet import captured_output

if TYPE_CHECKING:
    from hypothesis.database import ExampleDatabase
    from rich.console import Console

    from embconform.conformance.options import RunOptions
    from embconform.conformance.report import Report
    from embconform.conformance.running.course import Progress
    from embconform.conformance.running.engine import Helpers, Spread
    from embconform.conformance.running.known_failures import KnownFailures
    from embconform.conformance.running.merging import Piece
    from embconform.conformance.running.rounds import Beat

_HEAD: Final = 200
"""Characters of what a target printed that a part of a run keeps."""


def run_all(
    plans: list[Plan],
    request: Request,
    before: Piece | None,
    *,
    to_stderr: bool,
    stop: Callable[[], bool],
) -> list[Report]:
    """Run targets one after another and print each report as it comes.

    Parameters
    ----------
    plans : list of Plan
    request : Request
    before : Piece or None
        The cut run that is to go on.
    to_stderr : bool
        Whether stdout belongs to something else.
    stop : callable
        Whether somebody wants to stop.

    Returns
    -------
    list of Report
        Up to the first that does not conform under fail_fast, or that was interrupted.
    """
    database = open_database(request.database)
    reports: list[Report] = []
    for plan in plans:
        report = run_plan(plan, request, before, database, stop)
        reports.append(report)
        show_report(report, first=len(reports) == 1, to_stderr=to_stderr)
        if stop() or (request.fail_fast and not report.conformant):
            break
    show_summary(reports, to_stderr=to_stderr)
    return reports


def show_report(report: Report, *, first: bool, to_stderr: bool) -> None:
    """Print a report, with an empty line before it unless it is the first."""
    from embconform.conformance.render import terminal

    def write(console: Console) -> None:
        if not first:
            console.print()
        terminal.render(report, console)

    show(write, err=to_stderr)


def show_summary(reports: list[Report], *, to_stderr: bool) -> None:
    """Print one line a target, where there are several."""
    from embconform.conformance.render import terminal

    if len(reports) > 1:
        show(lambda console: terminal.render_summary(reports, console), err=to_stderr)


def show_all(reports: list[Report], *, to_stderr: bool) -> None:
    """Print reports that came at once."""
    for report in reports:
        show_report(report, first=report is reports[0], to_stderr=to_stderr)
    show_summary(reports, to_stderr=to_stderr)


def run_plan(
    plan: Plan,
    request: Request,
    before: Piece | None,
    database: ExampleDatabase | None,
    stop: Callable[[], bool],
) -> Report:
    """Run one target, its output kept away; parameters as in :func:`run_all`."""
    from embconform.conformance.options import RunOptions
    from embconform.conformance.results import printed_note
    from embconform.conformance.running.known_failures import KnownFailures

    asked, request = request, replace(request, device=plan.device)
    options = RunOptions(
        profile=plan.profile,
        budget=request.budget,
        max_examples=request.max_examples,
        seed=request.seed,
        device=plan.device,
        select=request.select,
        deviations=plan.deviations,
        strict=request.strict,
        fail_fast=request.fail_fast,
        seconds=request.timeout,
    )
    replay = asked.replay(plan.target, plan.profile)
    try:
        with _scratch() as folder:
            inside = isinstance(plan.subject, Backend)
            known = KnownFailures(database, plan.target) if database else None
            job = _Work(plan, request, options, before, stop, folder, known)
            report, printed, head = (_run_here if inside else _run_apart)(job)
    except Exception as error:
        error.add_note(f"replay: {replay}")
        raise
    printed += plan.printed + (before.found.part.printed if before else 0)
    head = (before.found.part.head if before else "") or head
    part = report.part
    if part:
        part.part.printed, part.part.head = printed, head[:_HEAD]
        part = replace(part, replay=asked.replay(plan.target, plan.profile, whole=True))
    notes = (*report.notes, *printed_note(printed, head))
    if known and known.unreadable:
        notes += (f"{known.unreadable} entries of the database can't be read and were left alone",)
    return replace(report, replay=replay, notes=notes, part=part)


@dataclass(frozen=True)
class _Work:
    """A target that is to be run, and how; `folder` is for files that nobody needs later."""

    plan: Plan
    request: Request
    options: RunOptions
    before: Piece | None
    stop: Callable[[], bool]
    folder: Path
    known: KnownFailures | None


Ran = tuple["Report", int, str]
"""A report, how many bytes the target printed, and how they begin."""


def _run_apart(work: _Work) -> Ran:
    """Run a target in the process that it has, and in those of helpers."""
    from embconform.conformance.running.crew import Crew
    from embconform.conformance.running.engine import run
    from embconform.conformance.running.helper_process import Assignment

    plan, request, isolated, stop = work.plan, work.request, work.plan.subject, work.stop
    assert not isinstance(isolated, Backend)
    limits, paths = limits_of(request), tuple(sys.path)
    assignment = Assignment(plan.target, limits, work.options, paths, str(work.folder))
    printed = isolated.printed
    with isolated, _progress(sys.stderr, plan.target) as (tick, say):
        with Crew(assignment, request.helpers, stop) as crew:
            spread = _spread(work, crew, say)
            report = run(
                isolated, work.options, target=plan.target, progress=tick, stop=stop, spread=spread
            )
            if not stop():
                crew.dismiss()
        tampered = () if stop() else isolated.finish()
        both = tuple(dict.fromkeys((*tampered, *crew.tampered)))
    report = replace(report, tampered=both)
    return report, printed.total_bytes + crew.printed, printed.head or crew.head


def _run_here(work: _Work) -> Ran:
    """Run a target in this process."""
    from embconform.conformance.running.engine import Alone, run

    plan = work.plan
    assert isinstance(plan.subject, Backend)
    captured = None
    try:
        with (
            captured_output() as captured,
            _progress(captured.terminal, plan.target) as (tick, say),
        ):
            report = run(
                plan.subject,
                work.options,
                target=plan.target,
                progress=tick,
                stop=work.stop,
                spread=_spread(work, Alone(), say),
            )
    except SystemExit as error:
        raise TargetError(f"{plan.target} left the process: exit({error.code})") from error
    except Exception as error:
        if captured and captured.head:
            error.add_note(f"printed meanwhile: {captured.head[-500:]}")
        raise
    return report, captured.total_bytes, captured.head


def _spread(work: _Work, helpers: Helpers, say: Callable[[str], None]) -> Spread:
    """Say how a run is spread, and refuse to go on with another one."""
    from embconform.conformance.results import Found
    from embconform.conformance.running.engine import Spread
    from embconform.conformance.running.merging import MergeError, Piece, check_same
    from embconform.conformance.running.rounds import Rounds

    before = work.before

    def check(here: Found) -> None:
        if before is None:
            return
        now = replace(here.options, deviations=before.found.options.deviations)
        now = replace(now, strict=before.found.options.strict)
        try:
            check_same(before, Piece("this command", work.plan.target, replace(here, options=now)))
        except MergeError as error:
            raise click.UsageError(f"--resume: {error}") from error

    shard, of = work.request.shard
    part = deepcopy(before.found.part) if before else None
    rounds = work.request.lasting and Rounds(work.request.lasting, lambda beat: say(_told(beat)))
    return Spread(helpers, shard, of, part, work.known, rounds or None, check)


def _told(beat: Beat) -> str:
    """Word a heartbeat."""
    return (
        f"round {beat.rounds}, seed {beat.seed}: {beat.cases:,} cases, {beat.broken} broken, "
        f"{beat.seconds / 60:.1f} min"
    )


@contextmanager
def _scratch() -> Iterator[Path]:
    """Keep Hypothesis's own files out of the folder that the user stands in."""
    from hypothesis.configuration import set_hypothesis_home_dir

    try:
        made = TemporaryDirectory(prefix="embconform-")
    except OSError as error:
        raise click.UsageError(
            f"can't make a temporary folder: {error.strerror}; let TMPDIR name one that can be "
            "written to"
        ) from error
    with made as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield Path(folder)
        finally:
            set_hypothesis_home_dir(None)


@contextmanager
def _progress(
    terminal: TextIO | None, target: str
) -> Iterator[tuple[Progress | None, Callable[[str], None]]]:
    """Show a bar where a person is looking; give what moves it, and what prints a line."""
    if terminal is None or not terminal.isatty():
        yield None, lambda line: print(line, file=terminal, flush=True) if terminal else None
        return
    from rich import progress as rich
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    bar = rich.Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[broken]}", style="red"),
        console=Console(file=terminal),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task(target, total=None, broken="")

        def tick(done: int, total: int, failing: int) -> None:
            broken = f"{failing} broken" if failing else ""
            bar.update(task, completed=done, total=total, broken=broken)

        yield tick, lambda line: bar.console.print(line, markup=False, highlight=False)
