"""embconform gate: whether head is as right and as fast as base."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import click

from embconform.backends.backend import TargetError
from embconform.backends.cache import cache_folder
from embconform.commands.outputs import Outputs
from embconform.commands.show import show
from embconform.commands.values import MONTH, MOST_THREADS, Amount, FilePath
from embconform.commands.written import write_text

if TYPE_CHECKING:
    from embconform.performance.gate.benchmarks import Benchmark
    from embconform.performance.gate.messages import Hello
    from embconform.performance.gate.report import GateReport
    from embconform.performance.gate.revisions import Tree
    from embconform.performance.gate.setup import Place

_FILE: Final = FilePath()
_ASV: Final = "asv.conf.json"
_SECONDS: Final = 240.0
_MOST_TRIALS: Final = 10_000


@click.command()
@click.option("--target", metavar="TARGET", help="As embconform validate takes it.")
@click.option("--base", metavar="REV", help="The revision to compare with, such as origin/main.")
@click.option("--allow-dirty", is_flag=True, help="Judge changes that are not committed too.")
@click.option("--workload", metavar="GLOB", help="Of embconform bench --list.  [default: a few]")
@click.option(
    "--passes", metavar="NAMES", default="forward,backward", show_default=True,
    help="Joined by commas; with --workload.",
)  # fmt: skip
@click.option(
    "--seconds", type=Amount(1, MONTH), default=_SECONDS, show_default=True,
    help="No restart begins later, but those in which a flag has to recur.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), default=1, show_default=True,
    help="Of torch.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Draws inputs."
)
@click.option("--conformance/--no-conformance", default=True, help="Judge both sides by clauses.")
@click.option("--select", metavar="GLOB", default="*", help="Only clauses whose id matches.")
@click.option(
    "--instructions", is_flag=True,
    help="Count those of the smallest calls too, with Valgrind; they decide nothing.",
)  # fmt: skip
@click.option(
    "--calibrate", type=click.IntRange(1, _MOST_TRIALS), metavar="N",
    help="Instead: try the gate N times on head against head and on planted slowdowns.",
)  # fmt: skip
@click.option(
    "--history", type=_FILE, is_flag=False, flag_value=_ASV, metavar="[ASV_CONF]",
    help=f"Instead: find slow drift in asv's results.  [default file: {_ASV}]",
)  # fmt: skip
@click.option(
    "--asv", type=_FILE, metavar="ASV_CONF", help="Write head's times into asv's results too."
)
@click.option("--json", "json_", type=_FILE, metavar="FILE", help="Write JSON; - is stdout.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write Markdown for a pull request.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML.")
@click.pass_context
def gate(
    context: click.Context,
    /,
    *,
    target: str | None,
    base: str | None,
    calibrate: int | None,
    history: Path | None,
    asv: Path | None,
    json_: Path | None,
    markdown: Path | None,
    junit: Path | None,
    **options: Any,
) -> None:
    """Compare the target as it is in this repository's working tree with another revision's.

    Fine means: no clause that passed on base fails on head, none of the benchmarks is slower by
    more than the threshold that the report names, and their memory has not grown. Head against
    head and a planted slowdown of 10% are measured along; where the gate does not tell these
    apart, it says nothing about the change.

    Exit codes: 0 fine, 1 regression, 2 the call, the base or the target can't be used, 3
    inconclusive or void.
    """
    from embconform.commands.gate_history import drift, need_asv
    from embconform.conformance.running.interrupt import Interruptible
    from embconform.performance.gate.revisions import RevisionError
    from embconform.performance.gate.workers import SideError

    outputs = Outputs(json_, junit, markdown)
    outputs.check()
    if history and not any((base, calibrate, junit, asv)):
        context.exit(drift(history, outputs))
    target = _target(
        target, base, calibrate, history, alone=not (json_ or markdown or junit or asv)
    )
    if options["instructions"]:
        _need_valgrind(base)
    if asv:
        need_asv(asv)
    benchmarks = _benchmarks(options["workload"], options["passes"])
    try:
        with Interruptible() as stop, stop.urgent():
            if calibrate:
                _calibrate(target, calibrate, benchmarks, options)
                return
            assert base is not None
            report = _compare(target, base, benchmarks, options, clean=asv is not None)
    except RevisionError as error:
        raise click.ClickException(str(error)) from error
    except SideError as error:
        fine = "; head is fine" if error.side == "base" else ""
        raise TargetError(f"{error.side} can't be used: {error}{fine}") from error
    _write(report, outputs)
    if asv:
        _into_asv(asv, report)
    context.exit(report.exit_code)


def _target(
    target: str | None,
    base: str | None,
    calibrate: int | None,
    history: Path | None,
    *,
    alone: bool,
) -> str:
    """Refuse options that don't go together; what is left has a target."""
    if [base, calibrate, history].count(None) != 2:
        raise click.UsageError("give --base REV, or --calibrate N or --history instead")
    if history:
        raise click.UsageError("--history writes --json and --markdown alone")
    if calibrate and not alone:
        raise click.UsageError("--calibrate writes no report; leave --json and the like out")
    if target is None:
        raise click.UsageError("give --target TARGET")
    return target


def _need_valgrind(base: str | None) -> None:
    """Refuse to count instructions where that can't be done."""
    from embconform.performance.gate.instructions import lacking

    if base is None:
        raise click.UsageError("--instructions goes with --base")
    if said := lacking():
        raise click.ClickException(said)


def _benchmarks(pattern: str | None, passes: str) -> list[Benchmark]:
    """Choose what is measured, or say what there is."""
    from embconform.commands.bench import read_passes
    from embconform.performance.gate.benchmarks import MOST, choose, default

    if pattern is None:
        return default()
    found = choose(pattern, read_passes(passes))
    if not found:
        raise click.UsageError(
            f"--workload {pattern!r} matches no workload (see: embconform bench --list)"
        )
    if len(found) > MOST:
        raise click.UsageError(
            f"{len(found)} benchmarks are too many to tell apart in minutes; the most is {MOST}"
        )
    return found


def _compare(
    target: str,
    revision: str,
    benchmarks: list[Benchmark],
    options: dict[str, Any],
    *,
    clean: bool,
) -> GateReport:
    """Do everything, with base checked out meanwhile."""
    from embconform.commands.gate_conformance import compare
    from embconform.performance.gate.calibration import quote
    from embconform.performance.gate.installed import install
    from embconform.performance.gate.instructions import count_instructions
    from embconform.performance.gate.report import GateReport
    from embconform.performance.gate.revisions import (
        RevisionError,
        checked_out,
        copied,
        find_head,
    )
    from embconform.performance.gate.run import measure
    from embconform.performance.gate.setup import get_ready
    from embconform.performance.machine import machine

    began = perf_counter()
    hello = _hello(options)
    head = find_head(Path.cwd(), allow_dirty=options["allow_dirty"])
    if clean and head.dirty:
        raise RevisionError("--asv writes a commit's times: commit the changes")
    environment = machine("cpu", options["threads"])
    place, cache = _here(head), cache_folder() / "gate"
    with (
        _telling() as tick,
        checked_out(head.folder, revision, cache) as base,
        copied(head, cache) as copy,
    ):
        tick("building head")
        now = install(copy, place.inside, _installed())
        tick("building base")
        before = install(base, place.inside, _installed())
        tick("importing both sides")
        ready = get_ready(target, before, now, place, hello, wanted=benchmarks)
        clauses = None
        if options["conformance"]:
            clauses = compare(
                ready.base, ready.head, ready.hello.search_path,
                seed=options["seed"], select=options["select"], tick=tick,
            )  # fmt: skip
        measured = measure(ready, seconds=options["seconds"], tick=tick)
        witness = count_instructions(ready, tick) if options["instructions"] else None
    return GateReport(
        target=target,
        base=base,
        head=head,
        rows=measured.rows,
        broken=ready.broken,
        left_out=ready.left_out,
        clauses=clauses,
        void=measured.void,
        restarts=measured.restarts,
        compilations=measured.compilations,
        witness=witness,
        together=ready.together,
        apart=ready.apart,
        how=ready.how,
        quoted=quote(_calibration_file(), environment),
        command=shlex.join(["embconform", *sys.argv[1:]]),
        environment=environment,
        seconds=perf_counter() - began,
    )


def _calibrate(
    target: str, trials: int, benchmarks: list[Benchmark], options: dict[str, Any]
) -> None:
    """Compare head with itself, and with itself slowed down."""
    from embconform.performance.gate.calibration import calibrate, save
    from embconform.performance.gate.installed import install
    from embconform.performance.gate.revisions import copied, find_head
    from embconform.performance.gate.setup import get_ready
    from embconform.performance.machine import machine

    hello = _hello(options)
    head = find_head(Path.cwd(), allow_dirty=True)
    place = _here(head)
    with _telling() as tick, copied(head, cache_folder() / "gate") as copy:
        tick("building and importing head")
        now = install(copy, place.inside, _installed())
        ready = get_ready(target, now, now, place, hello, wanted=benchmarks)
        environment = machine("cpu", options["threads"])
        found = calibrate(ready, trials, environment=environment, tick=tick)
    save(found, _calibration_file())
    for line in found.lines:
        click.echo(line)


def _here(head: Tree) -> Place:
    """Tell where in the tree the current folder is."""
    from embconform.performance.gate.setup import Place

    return Place(head.folder, Path.cwd().resolve().relative_to(head.folder.resolve()))


def _installed() -> Path:
    return cache_folder() / "gate-installed"


def _hello(options: dict[str, Any]) -> Hello:
    from embconform.performance.gate.messages import Hello

    path = tuple(entry for entry in sys.path if entry)
    return Hello(path, options["threads"], options["seed"])


def _calibration_file() -> Path:
    return cache_folder() / "gate-calibration.json"


def _write(report: GateReport, outputs: Outputs) -> None:
    """Print, and write the files."""
    from embconform.performance.gate import render

    show(lambda console: render.terminal(report, console), err=outputs.on_stdout)
    for path, text in (
        (outputs.json, render.as_json),
        (outputs.markdown, render.markdown),
        (outputs.junit, render.junit),
    ):
        if path:
            write_text(path, text(report))


def _into_asv(config: Path, report: GateReport) -> None:
    from embconform.performance.gate.asv_results import AsvError, write

    seconds = {row.name: row.head_seconds for row in report.rows}
    try:
        write(config, report.head.commit, seconds, report.environment)
    except (AsvError, OSError) as error:
        raise click.ClickException(f"can't write into asv's results: {error}") from error


@contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """Show what is being done, where a person is looking."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda said: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update
