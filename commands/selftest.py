"""embconform selftest: show on this machine that the checks catch what they are there for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from embconform.commands.outputs import Outputs
from embconform.commands.planning import check_pattern
from embconform.commands.show import show
from embconform.commands.values import FilePath
from embconform.commands.written import write_text

if TYPE_CHECKING:
    from rich.console import Console

    from embconform.proof.kills import Group, Kills


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=None,
    help="Processes at a time.  [default: one a core]",
)
@click.option(
    "--select",
    metavar="GLOB",
    default="*",
    help="Only bugs planted for clauses whose id matches; several patterns joined by commas.",
)
@click.option("--json", "json_", type=FilePath(), metavar="FILE",
              help="Write JSON; - is stdout.")  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Draws cases."
)
@click.pass_context
def selftest(
    context: click.Context, /, *, workers: int | None, select: str, json_: Path | None, seed: int
) -> None:
    """Run the planted bugs and the right embeddings, and print which bugs are caught.

    Every bug is run until the clause that it is planted for is broken. It counts as caught only by
    a clause that the right embedding passes which it is made of.

    Exit codes: 0 every bug is caught and no right embedding refused, 1 otherwise, 2 the call can't
    be used, 3 embconform itself failed.
    """
    outputs = Outputs(json_)
    outputs.check()
    check_pattern(select)
    kills = _run(select, seed, workers or len(os.sched_getaffinity(0)))
    if json_:
        write_text(json_, json.dumps(kills.as_dict(), indent=1) + "\n", "--json")
    show(lambda console: render(kills, console), err=outputs.on_stdout)
    context.exit(0 if kills.passed else 1)


def _run(select: str, seed: int, workers: int) -> Kills:
    """Do everything in processes of their own."""
    from embconform.proof.kills import Kills, tasks
    from embconform.proof.pool import each
    from embconform.proof.tasks import do

    started = perf_counter()
    kills = Kills(seed, select)
    todo = tasks(select, seed)
    with _progress(len(todo)) as tick:
        for task, result in each(do, todo, workers):
            kills.add(task, result)
            tick(len(kills.survivors) + len(kills.refused) + len(kills.died))
    kills.seconds = perf_counter() - started
    return kills


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left, where a person is looking."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    bar = Progress(
        TextColumn("planted bugs and right embeddings"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[wrong]}", style="red"),
        console=console,
        transient=True,
    )
    with bar:
        line = bar.add_task("", total=total, wrong="")

        def tick(wrong: int) -> None:
            bar.update(line, advance=1, wrong=f"{wrong} wrong" if wrong else "")

        yield tick


def render(kills: Kills, console: Console) -> None:
    """Print the kill table, and then each survivor and each right embedding that was refused.

    Parameters
    ----------
    kills : Kills
    console : Console
    """
    console.print(_table(kills))
    total = kills.total()
    if total.own < total.planted:
        _listed(console, "Not caught by the clause they are planted for", [
            f"{hunt.name} ({hunt.profile}), planted for {hunt.clause}, caught by "
            f"{', '.join(catch.clause for catch in hunt.catches)}: {hunt.story}"
            for hunt in kills.judged() if hunt.caught and not hunt.own
        ])  # fmt: skip
    _listed(console, "Survivors", [
        f"{hunt.name} ({hunt.profile}), planted for {hunt.clause}: {hunt.story}"
        for hunt in kills.survivors
    ])  # fmt: skip
    _listed(console, "Right embeddings refused", [
        f"{done.name} ({done.profile}), by {clause}: {why}"
        for done in kills.refused for clause, why in done.refused.items()
    ])  # fmt: skip
    _listed(console, "Not finished", [f"{task.name}: {died.why}" for task, died in kills.died])
    accepted = len(kills.acceptances) - len(kills.refused)
    verdict = "passed" if kills.passed else "failed"
    console.print(
        f"{verdict}  {total.caught} of {total.planted} planted bugs caught, {accepted} of "
        f"{len(kills.acceptances)} right embeddings accepted, {kills.seconds:.0f} s, "
        f"seed {kills.seed}",
        style="bold green" if kills.passed else "bold red",
        soft_wrap=True,
        highlight=False,
    )


def _table(kills: Kills) -> object:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, show_footer=True, pad_edge=False)
    total = kills.total()
    for title, footer in (
        ("clauses", total.name),
        ("planted", str(total.planted)),
        ("caught", str(total.caught)),
        ("by their own clause", str(total.own)),
        ("with a script", str(total.scripted)),
    ):
        table.add_column(title, footer, justify="left" if title == "clauses" else "right")
    for group in kills.groups():
        style = "" if group.caught == group.planted else "red"
        table.add_row(*_cells(group), style=style)
    return table


def _cells(group: Group) -> list[str]:
    counts = (group.planted, group.caught, group.own, group.scripted)
    return [group.name, *(str(count) for count in counts)]


def _listed(console: Console, title: str, lines: list[str]) -> None:
    if not lines:
        return
    console.print(title, style="bold")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)
    console.print()
