"""embconform bench: how fast targets are, against each other and against what memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from embconform.backends.backend import Backend, TargetError
from embconform.backends.devices import DEVICES, check_device
from embconform.commands.bench_files import BenchFiles
from embconform.commands.show import show
from embconform.commands.values import MONTH, MOST_THREADS, Amount, FilePath
from embconform.commands.written import STDOUT
from embconform.conformance.quiet import captured_output

if TYPE_CHECKING:
    from rich.console import Console

    from embconform.conformance.isolation.isolated import Isolated
    from embconform.performance.run import BenchReport, Request
    from embconform.performance.workloads import Workload

_FILE: Final = FilePath()
_SECONDS: Final = 75.0
_QUICK_SECONDS: Final = 10.0
_FEWEST_JUDGING: Final = 15.0
"""Seconds that a target is judged for at least, where its cases take that long."""
_QUICK_PASSES: Final = ("forward", "backward")
_QUICK_WORKLOADS: Final = "movielens-items-batch-zipf-float32,gpt2-token-zipf-float32"


def _list_workloads(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the table of workloads and leave."""
    if not wanted:
        return
    from embconform.performance.workloads import WORKLOADS

    def write(console: Console) -> None:
        from rich.text import Text

        widest = max(len(workload.name) for workload in WORKLOADS)
        for workload in WORKLOADS:
            mark = "*" if workload.default else " "
            sizes = f"{workload.count:>7,} of {workload.rows:>10,} x {workload.width:<5,}"
            line = f"{mark} {workload.name:<{widest}}  {sizes}  "
            console.print(
                Text(line + f"{workload.table.source}; {workload.source}"), soft_wrap=True
            )
        console.print(Text("\n* measured where --workload names none", "dim"))

    show(write)
    context.exit()


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--against",
    help="What ratios are to: a target.  [default: eager, on a CUDA device cuda]",
)
@click.option("--workload", metavar="GLOB", help="Only these; several patterns joined by commas.")
@click.option("--passes", metavar="NAMES", help="Joined by commas.  [default: all]")
@click.option(
    "--cache",
    type=click.Choice(["warm", "cold", "both"]),
    default="warm",
    show_default=True,
    help="Leave the caches as they are, or empty them before each call.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    help="Where to run.  [default: cpu, or what the targets are for]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    default=1,
    show_default=True,
    help="Of torch.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Draws inputs."
)
@click.option(
    "--seconds",
    type=Amount(1, MONTH),
    help=f"For everything; the rest is listed as left out.  [default: {_SECONDS:.0f} a target]",
)
@click.option("--growth/--no-growth", default=True, help="Measure cost by N and by V.")
@click.option("--quick", is_flag=True, help="Two workloads, two passes, few seconds.")
@click.option("--json", "json_", type=_FILE, metavar="FILE", help="Write JSON; - is stdout.")
@click.option("--html", type=_FILE, metavar="FILE", help="Write one HTML page.")
@click.option(
    "--plot", type=_FILE, metavar="FILE", multiple=True, help="Draw to a .png or .svg file."
)
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_workloads,
    help="List the workloads and exit.",
)  # fmt: skip
@click.pass_context
def bench(
    context: click.Context,
    /,
    *,
    targets: tuple[str, ...],
    json_: Path | None,
    html: Path | None,
    plot: tuple[Path, ...],
    device: str | None,
    against: str | None,
    **options: Any,
) -> None:
    """Measure how fast embeddings are, in turn, and compare them.

    TARGET is what embconform validate takes. Each time stands beside its ratio to --against, with
    a 95% interval, and beside the share of this machine's copy bandwidth that it reaches. A target
    that breaks a clause on a workload's options, or whose timed calls gave wrong results, is
    marked and not ranked.

    Exit codes: 0 all ranked, 1 some target is wrong or not conformant, 2 the call or a target
    can't be used, 3 embconform itself failed.
    """
    files = BenchFiles(json_, html, plot)
    files.check()
    named = "eager" if against is None else against  # until it is known where targets run
    request = _request(device or "cpu", len({named, *targets}), against=named, **options)
    wanted = {name: _resolve(name) for name in targets}
    against = _eager(wanted, device) if against is None else against
    backends = {against: wanted.get(against) or _resolve(against), **wanted}
    request = replace(request, against=against, device=_device(backends, device))
    with captured_output() as captured, _progress(captured.terminal) as tick:
        report = _measure(list(backends.items()), request, tick)
    to_stderr = json_ == STDOUT
    from embconform.performance.render import terminal

    show(lambda console: terminal.render(report, console), err=to_stderr)
    files.write(report)
    from embconform.performance.measure import Status

    fine = {Status.OK, Status.UNSUPPORTED}
    context.exit(0 if all(result.status in fine for result in report.results) else 1)


def _eager(backends: dict[str, Backend], device: str | None) -> str:
    """Choose eager PyTorch on the CPU or, by the name that its deviations have there, on CUDA."""
    served = all("cpu" in backend.capabilities.devices for backend in backends.values())
    return "cuda" if device == "cuda" or not (device or served) else "eager"


def _device(backends: dict[str, Backend], wanted: str | None) -> str:
    """Choose the device: the first that all targets serve; refuse one that isn't there."""
    serving = [
        device
        for device in DEVICES
        if all(device in backend.capabilities.devices for backend in backends.values())
    ]
    if not (wanted or serving):
        told = "; ".join(f"{k} on {', '.join(b.capabilities.devices)}" for k, b in backends.items())
        raise TargetError(f"no device serves all targets: {told}")
    device = wanted or serving[0]
    for name, backend in backends.items():
        check_device(name, backend.capabilities, device)
    return device


def _request(
    device: str,
    targets: int,
    *,
    against: str,
    workload: str | None,
    passes: str | None,
    cache: str,
    threads: int,
    seed: int,
    seconds: float | None,
    growth: bool,
    quick: bool,
) -> Request:
    """Check names, and fill in what wasn't given."""
    from embconform.performance.passes import PASSES
    from embconform.performance.run import Request

    chosen = _workloads(_QUICK_WORKLOADS if quick and workload is None else workload)
    default = _QUICK_PASSES if quick else tuple(PASSES)
    return Request(
        workloads=tuple(chosen),
        passes=default if passes is None else read_passes(passes),
        caches=("warm", "cold") if cache == "both" else (cache,),
        against=against,
        device=device,
        seed=seed,
        threads=threads,
        seconds=seconds or targets * (_QUICK_SECONDS if quick else _SECONDS),
        growth=growth,
        quick=quick,
    )


def _workloads(pattern: str | None) -> list[Workload]:
    """Find workloads, or say what there is."""
    from embconform.performance.workloads import WORKLOADS, find

    found = find(pattern)
    if found:
        return found
    close = get_close_matches(
        str(pattern), [workload.name for workload in WORKLOADS], n=1, cutoff=0.3
    )
    hint = f", did you mean {close[0]!r}?" if close else " (see: embconform bench --list)"
    raise click.UsageError(f"--workload {pattern!r} matches no workload{hint}")


def read_passes(names: str) -> tuple[str, ...]:
    """Read a list of passes.

    Parameters
    ----------
    names : str
        Joined by commas.

    Returns
    -------
    tuple of str

    Raises
    ------
    click.UsageError
        If there is no such pass.
    """
    from embconform.performance.passes import PASSES

    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in PASSES:
            raise click.UsageError(f"--passes: no pass {name!r}; there are {', '.join(PASSES)}")
    return tuple(dict.fromkeys(wanted))


def _resolve(name: str) -> Backend:
    """Import a target."""
    from embconform.backends.targets import resolve

    if ":" in name:
        _survive(name)
    with captured_output():
        return resolve(name)


def _survive(name: str) -> None:
    """Import foreign code in a process of its own first: one that dies of it can't say why."""
    from embconform.conformance.isolation.isolated import Isolated

    with Isolated(name) as imported:
        imported.rest()


def _measure(
    named: list[tuple[str, Backend]], request: Request, tick: Callable[[int, int, str], None] | None
) -> BenchReport:
    """Judge the targets on the options at hand, and measure them."""
    from embconform.performance.measure import Target
    from embconform.performance.run import run

    began = perf_counter()
    targets, judged = [], []
    for k, (name, backend) in enumerate(named):
        if tick:
            tick(k, 10 * len(named), f"judging {name}")
        broken, said = _judged(name, backend, request)
        targets.append(Target(name, backend, broken))
        judged.append(said)
    left = max(request.seconds / 3, request.seconds - (perf_counter() - began))
    try:
        report = run(targets, replace(request, seconds=left), progress=tick)
    except SystemExit as error:
        raise TargetError(f"a target left the process: exit({error.code})") from error
    return replace(report, notes=(*report.notes, *judged))


def _judged(name: str, backend: Backend, request: Request) -> tuple[dict[str, frozenset[str]], str]:
    """Validate a target on the clauses that speak of the options to be measured.

    Gives the broken clauses with their needs, and a line on how thorough that was.
    """
    from tempfile import TemporaryDirectory

    from hypothesis.configuration import set_hypothesis_home_dir

    from embconform.backends.deviations import active, load
    from embconform.conformance.options import RunOptions
    from embconform.conformance.report import BROKEN
    from embconform.conformance.running.engine import run

    chosen = _clauses(backend, request)
    options = RunOptions(
        profile=backend.profiles[0],
        budget="quick",
        max_examples=_cases(backend, quick=request.quick),
        seed=request.seed,
        device=request.device,
        select=",".join(chosen),
        deviations=active(load(backend.deviations)) if backend.deviations else (),
        seconds=max(_FEWEST_JUDGING, request.seconds / 3),
    )
    with TemporaryDirectory(prefix="embconform-") as folder:
        set_hypothesis_home_dir(folder)
        try:
            with _subject(name, backend, request.device) as subject:
                report = run(subject, options, target=name)
        except SystemExit as error:
            raise TargetError(f"{name} left the process: exit({error.code})") from error
        finally:
            set_hypothesis_home_dir(None)
    broken = {
        result.clause.id: result.clause.needs
        for result in report.clauses
        if result.status in BROKEN and report.counts_against(result)
    }
    exercised = sum(result.exercised > 0 for result in report.clauses)
    said = (
        f"{name} was judged by {report.cases} cases, which exercised {exercised} of the "
        f"{len(chosen)} clauses on these options; embconform validate judges by all"
    )
    return broken, said


def _subject(
    name: str, backend: Backend, device: str
) -> AbstractContextManager[Backend | Isolated]:
    """Give what is judged, on CUDA in processes of its own.

    An index that is out of range can end the context, and this process needs its own to measure.
    """
    if device != "cuda":
        return nullcontext(backend)
    from embconform.conformance.isolation.isolated import Isolated

    return Isolated(name, device)


def _clauses(backend: Backend, request: Request) -> list[str]:
    """List the clauses that speak of nothing but what will be measured."""
    from embconform.performance.passes import PASSES
    from embconform.reference.clause import select

    needs = {"functional", "module", "half", "huge_tables"}
    for workload in request.workloads:
        needs |= set().union(*(PASSES[name].needs(workload) for name in request.passes))
    groups = ("lookup", "gradient", "padding", "max-norm", "sparse", "state")
    return [
        clause.id
        for clause in select(backend.profiles[0], "*")
        if clause.needs <= needs and clause.group in groups and clause.id != "state.threads"
    ]


def _cases(backend: Backend, *, quick: bool) -> int:
    """Say how many cases a target is judged by; a compiled one pays seconds for each structure."""
    if backend.compiled:
        return 4 if quick else 12
    return 100 if quick else 300


@contextmanager
def _progress(terminal: TextIO) -> Iterator[Callable[[int, int, str], None] | None]:
    """Show a bar with the time left, where a person is looking."""
    if not terminal.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(file=terminal),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task("", total=None)

        def tick(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, description=label)

        yield tick
