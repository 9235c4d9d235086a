"""The matrix as a comment on a pull request: a row a backend, a column a group of clauses."""

from __future__ import annotations

from typing import Final

from embconform.conformance.render.markup import ROOM, cell, code, details, fitted, table
from embconform.conformance.render.matrix.model import MEANINGS, SYMBOLS, Matrix
from embconform.conformance.render.matrix.page import headline
from embconform.conformance.render.matrix.support import words
from embconform.conformance.render.wording import ORDER
from embconform.conformance.report import Status

_MOST: Final = 60


def render(matrix: Matrix) -> str:
    """Write reports side by side as Markdown.

    Parameters
    ----------
    matrix : Matrix

    Returns
    -------
    str
        Short enough for a comment: what doesn't fit is left out, and said to be.
    """
    used = {each.status for column in matrix.columns for each in column.cells.values()}
    legend = [f"{SYMBOLS[s]} {s.value}: {MEANINGS[s]}" for s in ORDER if s in used]
    supports = [
        f"- {code(name)}: {', '.join(words(column.missing))}"
        for name, column in list(zip(matrix.names, matrix.columns, strict=True))[:_MOST]
    ]
    return fitted(
        [
            f"### embconform matrix: {headline(matrix)}\n",
            _table(matrix),
            f"{'; '.join(legend)}\n",
            details("What each supports", supports),
        ],
        ROOM,
    )


def _table(matrix: Matrix) -> str:
    """Count each group's statuses, the gravest first and what passed last."""
    order = [status for status in ORDER if status is not Status.PASS] + [Status.PASS]
    rows = []
    for name, column in list(zip(matrix.names, matrix.columns, strict=True))[:_MOST]:
        cells = []
        for group in matrix.groups.values():
            found = column.count(row.id for row in group)
            cells.append(" ".join(f"{SYMBOLS[s]}{found[s]}" for s in order if found[s]) or "·")
        sign = "✅" if column.conformant else "❌"
        rows.append((cell(name), f"{sign} {column.verdict}", *cells))
    more = len(matrix.columns) - _MOST
    if more > 0:
        rows.append((f"and {more} more", *[""] * (len(matrix.groups) + 1)))
    return table(("backend", "verdict", *map(cell, matrix.groups)), rows)
