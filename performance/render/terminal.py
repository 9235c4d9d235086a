"""The report on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from embconform.performance.render.rows import (
    GROWTH_HEADS,
    RESULT_HEADS,
    Row,
    ceilings,
    growth_rows,
    heading,
    result_blocks,
)
from embconform.performance.run import BenchReport

_RIGHT = frozenset({"time", "ceiling", "peak", "allocated"})


def render(report: BenchReport, console: Console) -> None:
    """Print a report.

    Parameters
    ----------
    report : BenchReport
    console : rich.console.Console
    """
    console.print(Text(heading(report), "bold"), soft_wrap=True)
    console.print(Text(ceilings(report), "dim"), soft_wrap=True)
    blocks = result_blocks(report)
    if blocks:
        console.print()
        table = _table(RESULT_HEADS)
        for block in blocks:
            table.add_row(Text(block.title, "cyan"), *[""] * (len(RESULT_HEADS) - 1))
            for row in block.rows:
                _add(table, row, indent="  ")
        _show(table, console)
    grown = growth_rows(report)
    if grown:
        console.print()
        table = _table(GROWTH_HEADS)
        for row in grown:
            _add(table, row)
        _show(table, console)
    for k, note in enumerate(report.notes):
        console.print(Text("\n" * (k == 0) + note, "yellow"), soft_wrap=True)
    for name in report.left_out[:5]:
        console.print(Text(f"  left out: {name}", "dim"), soft_wrap=True)
    if len(report.left_out) > 5:
        console.print(Text(f"  and {len(report.left_out) - 5} more", "dim"))


def _table(heads: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        last = head == "remarks"
        side = "right" if head in _RIGHT else "left"
        table.add_column(head, justify=side, no_wrap=not last)  # type: ignore[arg-type]
    return table


def _add(table: Table, row: Row, indent: str = "") -> None:
    style = "" if row.ranked else "red"
    first, *others = row.cells
    table.add_row(Text(indent + first), *(Text(cell) for cell in others), style=style)


def _show(table: Table, console: Console) -> None:
    """Print a table as wide as it needs to be where nobody looks at it on a terminal."""
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(file=console.file, width=400)
    with wide.capture() as captured:
        wide.print(table)
    for line in captured.get().splitlines():
        console.print(Text(line.rstrip()), soft_wrap=True)
