"""A broken clause as plain text, for exceptions and pytest."""

from __future__ import annotations

from textwrap import fill, indent

from embconform.conformance.render.wording import clean, happened, numbers
from embconform.conformance.report import ClauseResult

WIDTH = 100


def failure_text(result: ClauseResult) -> str:
    """Write what a clause demands and how its smallest case breaks it.

    Parameters
    ----------
    result : ClauseResult

    Returns
    -------
    str
        Several lines: id, level, sentence, what happened, numbers, the case as torch code.
    """
    clause = result.clause
    lines = [
        f"{clause.id} ({clause.level.value}): {result.status.value}",
        fill(clause.sentence, WIDTH, initial_indent="  ", subsequent_indent="  "),
        f"  {happened(result)}",
        *(f"  {name:6} {value}" for name, value in numbers(result)),
    ]
    if result.failure and result.failure.call:
        lines += ["", indent(clean(result.failure.call), "    ")]
    return "\n".join(lines)
