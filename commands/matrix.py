"""embconform matrix: reports side by side, as a page or as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embconform.backends.deviations import load
from embconform.backends.devices import DEVICES
from embconform.commands import judging_options
from embconform.commands.outputs import Outputs
from embconform.commands.parts import read_columns
from embconform.commands.planning import check_selection, plan_all
from embconform.commands.request import Request
from embconform.commands.show import show
from embconform.commands.values import MOST_EXAMPLES, SECONDS, FilePath
from embconform.commands.written import write_text
from embconform.conformance.running.interrupt import Interruptible
from embconform.reference.clause import Profile

if TYPE_CHECKING:
    from rich.console import Console

    from embconform.conformance.render.matrix.model import Column, Matrix
    from embconform.conformance.report import Report

_FILE = FilePath()


@click.command()
@click.argument("sources", metavar="TARGET|REPORT.json...", nargs=-1, required=True)
@click.option("--html", type=_FILE, metavar="FILE", help="Write one HTML page.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write Markdown for a pull request.")
@click.option(
    "--json",
    "json_",
    type=_FILE,
    metavar="FILE",
    help="Write the reports of the TARGETs, as validate does; - is stdout.",
)
@click.option(
    "--profile",
    type=click.Choice([profile.value for profile in Profile]),
    help="Which embedding is meant.  [default: each backend's own]",
)
@judging_options.budget
@click.option(
    "--max-examples",
    type=click.IntRange(1, MOST_EXAMPLES),
    help="At most this many cases a target.",
)
@judging_options.seed
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    help="Where to run.  [default: cpu, or what a target is for]",
)
@judging_options.select
@judging_options.deviations
@judging_options.strict
@click.option("--timeout", type=SECONDS, metavar="SECONDS", help="Longest time for a target's run.")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    envvar="EMBCONFORM_WORKERS",
    metavar="N",
    help="Spread a run over N processes.  [default: one a core, at most 4]",
)
@click.option(
    "--database",
    metavar="WHERE",
    envvar="EMBCONFORM_DATABASE",
    help="Where failing cases persist, as for validate.",
)
@click.pass_context
def matrix(
    context: click.Context,
    /,
    *,
    sources: tuple[str, ...],
    html: Path | None,
    markdown: Path | None,
    json_: Path | None,
    profile: str | None,
    **options: Any,
) -> None:
    """Set embeddings side by side: groups of clauses by backends.

    TARGET is judged now, as validate judges it, in a process of its own. REPORT.json is what
    validate --json wrote; its name ends in .json. Without --html or --markdown a table is printed.

    Exit codes: 0 all are conformant, 1 one is not, 2 the call, a target or a file can't be used,
    3 embconform itself failed, 130 interrupted (nothing is written).
    """
    from embconform.conformance.render.matrix.model import Matrix

    request = Request(
        profile=Profile(profile) if profile else None,
        fail_fast=False,
        isolation="process",
        case_timeout=None,
        memory=None,
        **options,
    )
    outputs = Outputs(json_)
    outputs.check()
    _check_pages({"--html": html, "--markdown": markdown}, json_)
    asked = [_asked(source) for source in sources]
    targets = tuple(each.target for each in asked if each.target)
    if json_ and not targets:
        raise click.UsageError(
            "--json writes the reports of targets that are judged now, and only files were given"
        )
    for candidate in [request.profile] if request.profile else []:
        check_selection(request.select, candidate)
    judged = _judge(targets, request)
    found = Matrix(_columns(asked, judged))
    pages = _pages(found, html, markdown)
    outputs.write(list(judged.values()))
    for option, (path, page) in pages.items():
        write_text(path, page, option)
    _print(found, [path for path, _ in pages.values()], to_stderr=outputs.on_stdout)
    context.exit(0 if found.conformant else 1)


@dataclass(frozen=True)
class _Asked:
    """What the user named: a target, or the columns of a file."""

    target: str = ""
    read: tuple[Column, ...] = ()


def _asked(source: str) -> _Asked:
    """Tell a file from a target, and read it."""
    if not source.endswith(".json"):
        return _Asked(source)
    return _Asked(read=tuple(read_columns(_FILE.convert(source, None, None))))


def _judge(targets: Sequence[str], request: Request) -> dict[str, Report]:
    """Judge each target in a process of its own, once where it is named twice."""
    from embconform.commands.database import open_database
    from embconform.commands.running import run_plan
    from embconform.conformance.running.crew import preparing

    if not targets:
        return {}
    own_rows = load(request.deviations) if request.deviations else ()
    database = open_database(request.database)
    judged: dict[str, Report] = {}
    with Interruptible() as stop, preparing(request.helpers):
        for plan in plan_all(tuple(targets), request, own_rows, stop):
            judged[plan.target] = run_plan(plan, request, None, database, stop)
            if stop():
                raise click.Abort
    return judged


def _columns(asked: Sequence[_Asked], judged: Mapping[str, Report]) -> tuple[Column, ...]:
    """Give a column a report, in the order in which the user named them."""
    from embconform.conformance.render.json import as_dict
    from embconform.conformance.render.matrix.reading import column

    made = {target: column(as_dict(report)) for target, report in judged.items()}
    left = dict(made)
    columns: list[Column] = []
    for each in asked:
        columns += each.read
        if each.target in left:
            columns.append(left.pop(each.target))
    return tuple(columns)


def _check_pages(pages: Mapping[str, Path | None], json_: Path | None) -> None:
    """Find out before the run whether the pages can be written."""
    from embconform.conformance.render.files import why_not_writable

    seen = {json_.resolve(): "--json"} if json_ else {}
    for option, path in pages.items():
        if path is None:
            continue
        if path == Path("-"):
            raise click.UsageError(f"{option} - : only --json may go to stdout")
        if reason := why_not_writable(path):
            raise click.UsageError(f"can't write {option} {path}: {reason}")
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise click.UsageError(f"{option} and {other} are the same file, {path}")


def _pages(found: Matrix, html: Path | None, markdown: Path | None) -> dict[str, tuple[Path, str]]:
    """Render what was asked for, by option."""
    from embconform.conformance.render.matrix import markdown as as_markdown
    from embconform.conformance.render.matrix import page

    pages: dict[str, tuple[Path, str]] = {}
    try:
        if html:
            pages["--html"] = html, page.render(found)
    except page.TooLargeError as error:
        raise click.UsageError(str(error)) from error
    if markdown:
        pages["--markdown"] = markdown, as_markdown.render(found)
    return pages


def _print(found: Matrix, pages: Sequence[Path], *, to_stderr: bool) -> None:
    """Print the table, or where the pages are."""
    from rich.text import Text

    from embconform.conformance.render.matrix import terminal
    from embconform.conformance.render.matrix.page import headline
    from embconform.conformance.render.wording import one_line

    def write(console: Console) -> None:
        if not pages:
            terminal.render(found, console)
        else:
            where = " and ".join(one_line(str(path)) for path in pages)
            console.print(Text(f"{headline(found)}; see {where}"), soft_wrap=True)

    show(write, err=to_stderr)
