"""The matrix as a person reads it on a terminal: groups by backends, with counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from embconform.conformance.render.matrix.model import SYMBOLS, Matrix
from embconform.conformance.render.matrix.page import headline
from embconform.conformance.render.matrix.support import words
from embconform.conformance.render.terminal import COLOURS
from embconform.conformance.render.wording import ORDER

_GAP: Final = 2


def render(matrix: Matrix, console: Console) -> None:
    """Write groups by backends, as many backends side by side as the terminal has room for.

    Parameters
    ----------
    matrix : Matrix
    console : rich.console.Console
    """
    rows = _rows(matrix)
    first = max(len(label) for label, _ in rows)
    for numbers in _pages(matrix, rows, console.width - first):
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
        table.add_column("", no_wrap=True)
        for number in numbers:
            table.add_column(Text(matrix.names[number]), overflow="fold")
        for label, cells in rows:
            table.add_row(label, *(cells[number] for number in numbers))
        console.print(table)
        console.print()
    for name, column in zip(matrix.names, matrix.columns, strict=True):
        line = Text.assemble(
            (name, "bold"), (" supports ", "dim"), ", ".join(words(column.missing))
        )
        console.print(line, soft_wrap=True, highlight=False)
    console.print()
    used = {cell.status for column in matrix.columns for cell in column.cells.values()}
    legend = [(f"{SYMBOLS[status]} {status.value}", status) for status in ORDER if status in used]
    parts = [Text.assemble((text, COLOURS[status]), "  ") for text, status in legend]
    console.print(Text.assemble(*parts), soft_wrap=True)
    console.print(Text(headline(matrix)), soft_wrap=True, highlight=False)


def _rows(matrix: Matrix) -> list[tuple[str, list[Text]]]:
    """Count every group's statuses in every report, and give the verdicts."""
    rows = [
        (group, [_counts(matrix, number, [row.id for row in clauses]) for number in _all(matrix)])
        for group, clauses in matrix.groups.items()
    ]
    verdicts = [
        Text(column.verdict, "bold green" if column.conformant else "bold red")
        for column in matrix.columns
    ]
    return [*rows, ("verdict", verdicts)]


def _all(matrix: Matrix) -> range:
    return range(len(matrix.columns))


def _counts(matrix: Matrix, number: int, clauses: list[str]) -> Text:
    found = matrix.columns[number].count(clauses)
    parts = [
        (f"{SYMBOLS[status]}{found[status]}", COLOURS[status]) for status in ORDER if found[status]
    ]
    if not parts:
        return Text("·", "dim")
    return Text(" ").join(Text(text, style) for text, style in parts)


def _pages(matrix: Matrix, rows: list[tuple[str, list[Text]]], room: int) -> Iterator[list[int]]:
    """Divide the reports among tables that a terminal has room for, one report at least in each."""
    page: list[int] = []
    left = room
    for number in _all(matrix):
        cells = [cells[number].cell_len for _, cells in rows]
        width = max(*cells, min(len(matrix.names[number]), 24)) + _GAP
        if page and width > left:
            yield page
            page, left = [], room
        page.append(number)
        left -= width
    yield page
