"""embconform validate: judge targets and write what was found."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TextIO

import click

from embconform.backends.backend import Backend, TargetError
from embconform.backends.deviations import Deviation, active, load
from embconform.commands.outputs import Outputs
from embconform.commands.show import show
from embconform.conformance.quiet import captured_output
from embconform.reference.clause import Profile, registry, select

if TYPE_CHECKING:
    from rich.console import Console

    from embconform.conformance.report import Report

_FILE = click.Path(path_type=Path)
_BUDGETS = ("quick", "default", "thorough")
_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Request:
    """What the user asked for, besides targets and files."""

    profile: Profile | None
    budget: str
    max_examples: int | None
    seed: int
    device: str
    select: str
    deviations: Path | None
    strict: bool
    fail_fast: bool

    def replay(self, target: str, profile: Profile) -> str:
        """Write the command line that repeats the run of one target."""
        words = ["embconform", "validate", target, "--profile", profile.value]
        words += ["--seed", str(self.seed)]
        for option, value, plain in (
            ("--budget", self.budget, "default"),
            ("--max-examples", self.max_examples, None),
            ("--device", self.device, "cpu"),
            ("--select", self.select, "*"),
            ("--deviations", self.deviations, None),
        ):
            if value != plain:
                words += [option, str(value)]
        words += ["--strict"] * self.strict + ["--fail-fast"] * self.fail_fast
        return shlex.join(words)


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--profile",
    type=click.Choice([profile.value for profile in Profile]),
    help="Which embedding is meant.  [default: the backend's own]",
)
@click.option(
    "--budget",
    type=click.Choice(_BUDGETS),
    default="default",
    show_default=True,
    help="How many cases to run.",
)
@click.option("--max-examples", type=click.IntRange(min=1), help="At most this many cases in all.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Draws cases."
)
@click.option(
    "--device", type=click.Choice(_DEVICES), default="cpu", show_default=True, help="Where to run."
)
@click.option(
    "--select",
    metavar="GLOB",
    default="*",
    help="Only clauses whose id matches; several patterns joined by commas.",
)
@click.option(
    "--deviations",
    type=_FILE,
    metavar="FILE",
    help="TOML with known deviations; or a built-in's name.",
)
@click.option("--strict", is_flag=True, help="Let SHOULD clauses and unexpected passes count.")
@click.option("-x", "--fail-fast", is_flag=True, help="Stop at the first broken clause.")
@click.option("--json", "json_", type=_FILE, metavar="FILE", help="Write JSON; - is stdout.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write Markdown for a pull request.")
@click.option("--repro-dir", type=_FILE, metavar="DIR", help="Write a script for each failure.")
@click.pass_context
def validate(
    context: click.Context,
    /,
    *,
    targets: tuple[str, ...],
    json_: Path | None,
    junit: Path | None,
    markdown: Path | None,
    repro_dir: Path | None,
    profile: str | None,
    **options: Any,
) -> None:
    """Judge embeddings by every clause that applies.

    TARGET is a name (see: embconform backends), package.module:attr or path/to/file.py:attr,
    where attr is a function f(input, weight, **options) like torch.nn.functional.embedding, a
    class like torch.nn.Embedding, or an embconform Backend.

    Exit codes: 0 conformant, 1 not conformant, 2 the call or the target can't be used, 3
    embconform itself failed.
    """
    outputs = Outputs(json_, junit, markdown, repro_dir)
    request = Request(profile=Profile(profile) if profile else None, **options)
    outputs.check()
    for candidate in [request.profile] if request.profile else []:
        _check_selection(request.select, candidate)
    own_rows = load(request.deviations) if request.deviations else ()
    plans = [_plan(target, request, own_rows) for target in dict.fromkeys(targets)]
    reports = _run_all(plans, request, outputs.on_stdout)
    outputs.write(reports)
    context.exit(0 if all(report.conformant for report in reports) else 1)


@dataclass(frozen=True)
class _Plan:
    """A target that can be run."""

    target: str
    backend: Backend
    profile: Profile
    deviations: tuple[Deviation, ...]
    printed: int = 0


def _plan(target: str, request: Request, own_rows: tuple[Deviation, ...]) -> _Plan:
    """Import a target and see that it can serve the request."""
    from embconform.backends.targets import resolve

    with captured_output() as captured:
        backend = resolve(target)
    profile = request.profile or backend.profiles[0]
    if profile not in backend.profiles:
        serves = " and ".join(backend.profiles)
        raise TargetError(
            f"{target} serves the {serves} profile, not {profile.value}; leave --profile out or "
            f"name {backend.profiles[0].value}"
        )
    _check_selection(request.select, profile)
    _check_device(target, backend, request.device)
    theirs = load(backend.deviations) if backend.deviations else ()
    mine = {row.clause for row in active(own_rows)}
    rows = active((*own_rows, *(row for row in theirs if row.clause not in mine)))
    return _Plan(target, backend, profile, rows, captured.total_bytes)


def _check_selection(pattern: str, profile: Profile) -> None:
    """Refuse a pattern that no clause matches."""
    if select(profile, pattern):
        return
    from difflib import get_close_matches

    said = f"--select {pattern!r} matches no clause of the {profile.value} profile"
    other = next((p for p in Profile if p is not profile and select(p, pattern)), None)
    if other:
        raise click.UsageError(f"{said}; it matches some of the {other.value} profile")
    close = get_close_matches(pattern, list(registry()), n=1)
    if pattern in {clause.group for clause in registry().values()}:
        close = [f"{pattern}.*"]
    hint = f", did you mean {close[0]!r}?" if close else " (see: embconform clauses)"
    raise click.UsageError(f"{said}{hint}")


def _check_device(target: str, backend: Backend, device: str) -> None:
    """Refuse a device that isn't there or that the backend doesn't serve."""
    if device not in backend.capabilities.devices:
        serves = ", ".join(backend.capabilities.devices)
        raise TargetError(f"{target} runs on {serves}, not on {device}")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise click.UsageError(
                f"--device cuda: torch {torch.__version__} finds no CUDA device here"
            )


def _run_all(plans: list[_Plan], request: Request, to_stderr: bool) -> list[Report]:
    """Run the targets one after another and print each report as it comes."""
    from embconform.conformance.render import terminal

    reports: list[Report] = []
    for plan in plans:
        report = _run(plan, request)
        reports.append(report)
        show(_with_gap(report, first=len(reports) == 1), err=to_stderr)
        if request.fail_fast and not report.conformant:
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


def _run(plan: _Plan, request: Request) -> Report:
    """Run one target with its output kept away."""
    from embconform.conformance.engine import run
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
    )
    replay = request.replay(plan.target, plan.profile)
    captured = None
    try:
        with (
            _scratch(),
            captured_output() as captured,
            _progress(captured.terminal, plan.target) as tick,
        ):
            report = run(plan.backend, options, target=plan.target, progress=tick)
    except SystemExit as error:
        raise TargetError(f"{plan.target} left the process: exit({error.code})") from error
    except Exception as error:
        error.add_note(f"replay: {replay}")
        if captured and captured.head:
            error.add_note(f"printed meanwhile: {captured.head[-500:]}")
        raise
    printed = plan.printed + captured.total_bytes
    notes = report.notes
    if printed:
        first = captured.head.strip().partition("\n")[0][:80]
        began = f", beginning with: {first}" if first else ""
        notes = (*notes, f"the target printed {printed:,} bytes, which are not shown{began}")
    return replace(report, replay=replay, notes=notes)


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
def _progress(terminal: TextIO, target: str) -> Iterator[Callable[[int, int, int], None] | None]:
    """Show a bar with the time left, where a person is looking."""
    if not terminal.isatty():
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
