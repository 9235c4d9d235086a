"""embconform backends: what there is to judge, and what can't run here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from embconform.commands.show import show

if TYPE_CHECKING:
    from rich.console import Console

    from embconform.backends.catalogue import Named

READY = "ready"


@click.command()
def backends() -> None:
    """List the backends that have a name; where one can't run here, why."""
    from embconform.backends.catalogue import catalogue
    from embconform.conformance.quiet import captured_output

    with captured_output():
        rows = [(named, *_state(named)) for named in catalogue().values()]
    show(lambda console: _table(rows, console))


def _state(named: Named) -> tuple[str, str]:
    """Give a backend's summary, and "ready" or why it can't run here."""
    from embconform.backends.backend import TargetError
    from embconform.backends.targets import resolve

    summary = named.summary
    try:
        summary = summary or resolve(named.name).summary
        if named.summary:
            resolve(named.name)
    except TargetError as error:
        reason = str(error).removeprefix(f"{named.name} can't run here: ")
        return summary or f"from {named.registered_by}", f"can't run here: {reason}"
    return summary or f"from {named.registered_by}", READY


def _table(rows: list[tuple[Named, str, str]], console: Console) -> None:
    """Show a line a backend, and what else can be judged."""
    from rich.text import Text

    names = max(len(named.name) for named, _, _ in rows)
    summaries = max(len(summary) for _, summary, _ in rows)
    for named, summary, state in rows:
        line = Text.assemble(
            (named.name.ljust(names + 2), "bold"),
            summary.ljust(summaries + 2),
            (state, "green" if state == READY else "yellow"),
        )
        console.print(line, soft_wrap=True)
    hint = "A target may also be package.module:attr or path/to/file.py:attr."
    console.print(Text(f"\n{hint}", "dim"), soft_wrap=True)
