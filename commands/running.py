"""Run targets, with a progress bar where a person is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TextIO

from embconform.backends.backend import Backend, TargetError
from embconform.commands.planning import Plan
from embconform.commands.request import Request
from embconform.commands.show import show
from embconform.conformance.quiet import captured_output

if TYPE_CHECKING:
    from rich.console import Console

    from embconform.conformance.options import RunOptions
    from embconform.conformance.report import Report


def run_all(
    plans: list[Plan], request: Request, *, to_stderr: bool, stop: Callable[[], bool]
) -> list[Report]:
    """Run targets one after another and print each report as it comes.

    Parameters
    ----------
    plans : list of Plan
    request : Request
    to_stderr : bool
        Whether stdout belongs to something else.
    stop : callable
        Whether somebody wants to stop.

    Returns
    -------
    list of Report
        Up to the first that does not conform under fail_fast, or that was interrupted.
    """
    from embconform.conformance.render import terminal

    reports: list[Report] = []
    for plan in plans:
        report = _run(plan, request, stop)
        reports.append(report)
        show(_with_gap(report, first=len(reports) == 1), err=to_stderr)
        if stop() or (request.fail_fast and not report.conformant):
            break
    if len(reports) > 1:
        show(lambda console: terminal.render_summary(reports, console), err=to_stderr)
    return reports


def _with_gap(report: Report, *, first: bool) -> Callable[[Console], None]:
    """Render a report, with an empty line before it unless it is the first."""
    from embconform.conformance.render import terminal

    def write(console: Console) -> None:
        if not first:
            console.print()
        terminal.render(report, console)

    return write


def _run(plan: Plan, request: Request, stop: Callable[[], bool]) -> Report:
    """Run one target, its output kept away."""
    from embconform.conformance.options import RunOptions

    options = RunOptions(
        profile=plan.profile,
        budget=request.budget,
        max_examples=request.max_examples,
        seed=request.seed,
        device=request.device,
        select=request.select,
        deviations=plan.deviations,
        strict=request.strict,
        fail_fast=request.fail_fast,
        seconds=request.timeout,
    )
    replay = request.replay(plan.target, plan.profile)
    try:
        with _scratch():
            inside = isinstance(plan.subject, Backend)
            report, printed, head = (_run_here if inside else _run_apart)(plan, options, stop)
    except Exception as error:
        error.add_note(f"replay: {replay}")
        raise
    notes = report.notes
    if plan.printed + printed:
        first = head.strip().partition("\n")[0][:80]
        began = f", beginning with: {first}" if first else ""
        told = f"the target printed {plan.printed + printed:,} bytes, which are not shown{began}"
        notes = (*notes, told)
    return replace(report, replay=replay, notes=notes)


Ran = tuple["Report", int, str]
"""A report, how many bytes the target printed, and how they begin."""


def _run_apart(plan: Plan, options: RunOptions, stop: Callable[[], bool]) -> Ran:
    """Run a target in the process that it has."""
    from embconform.conformance.engine import run

    isolated = plan.subject
    assert not isinstance(isolated, Backend)
    with isolated, _progress(sys.stderr, plan.target) as tick:
        report = run(isolated, options, target=plan.target, progress=tick, stop=stop)
        report = replace(report, tampered=() if stop() else isolated.finish())
    return report, isolated.printed.total_bytes, isolated.printed.head


def _run_here(plan: Plan, options: RunOptions, stop: Callable[[], bool]) -> Ran:
    """Run a target in this process."""
    from embconform.conformance.engine import run

    assert isinstance(plan.subject, Backend)
    captured = None
    try:
        with captured_output() as captured, _progress(captured.terminal, plan.target) as tick:
            report = run(plan.subject, options, target=plan.target, progress=tick, stop=stop)
    except SystemExit as error:
        raise TargetError(f"{plan.target} left the process: exit({error.code})") from error
    except Exception as error:
        if captured and captured.head:
            error.add_note(f"printed meanwhile: {captured.head[-500:]}")
        raise
    return report, captured.total_bytes, captured.head


@contextmanager
def _scratch() -> Iterator[None]:
    """Keep Hypothesis's own files out of the folder that the user stands in."""
    from hypothesis.configuration import set_hypothesis_home_dir

    with TemporaryDirectory(prefix="embconform-") as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(None)


@contextmanager
def _progress(
    terminal: TextIO | None, target: str
) -> Iterator[Callable[[int, int, int], None] | None]:
    """Show a bar with the time left, where a person is looking."""
    if terminal is None or not terminal.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
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

        yield tick
