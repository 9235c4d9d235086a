"""The report that fits a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from embconform.conformance.render.wording import (
    broken,
    by_reason,
    clean,
    counts,
    happened,
    headline,
    numbers,
    one_line,
)
from embconform.conformance.report import ClauseResult, Report, Status

ROOM: Final = 60_000  # GitHub refuses comments of more than 65,536 characters


def render(reports: Sequence[Report]) -> str:
    """Write reports as Markdown.

    Parameters
    ----------
    reports : sequence of Report

    Returns
    -------
    str
        Short enough for a comment: what doesn't fit is left out, and said to be.
    """
    room = ROOM // max(1, len(reports))
    return "\n".join(_report(report, room) for report in reports)


def _report(report: Report, room: int) -> str:
    """Write one target, its sections in order of use until the room is used up."""
    failed, warned = broken(report)
    tally = ", ".join(f"{number} {status.value}" for status, number in counts(report))
    parts = [
        f"### embconform: {_code(report.target)} is {report.verdict}\n",
        f"{headline(report)}\n",
        f"{tally}. {report.cases:,} cases in {report.seconds:.1f} s, seed {report.seed}, "
        f"{report.budget} budget, {report.device}.\n",
        _table(failed, "what happened"),
        _details("Smallest failing calls", [_call(result) for result in failed]),
        _details(f"Known deviations ({_number(report, Status.DEVIATION)})", _known(report)),
        _details("Warnings (SHOULD)", [_table(warned, "what happened")] if warned else []),
        *(_group(report, status) for status in (Status.UNTESTED, Status.UNSUPPORTED)),
        _details("Unexpected passes", _unexpected(report)),
        f"Replay: {_code(report.replay)}\n" if report.replay else "",
    ]
    kept: list[str] = []
    for part in filter(None, parts):
        if sum(map(len, kept)) + len(part) > room:
            kept.append("*Some of the report is left out: it doesn't fit a comment.*\n")
            break
        kept.append(part)
    return "\n".join(kept)


def _number(report: Report, status: Status) -> int:
    return len(report.with_status(status))


def _table(results: list[ClauseResult], third: str) -> str:
    """Write clauses and what became of them."""
    if not results:
        return ""
    rows = [f"| clause | level | {third} |", "|---|---|---|"]
    for result in results[:50]:
        clause = result.clause
        told = happened(result) or result.status.value
        rows.append(
            f"| `{clause.id}`<br>{_cell(clause.sentence)} | {clause.level.value} | {_cell(told)} |"
        )
    if len(results) > 50:
        rows.append(f"| and {len(results) - 50} more | | |")
    return "\n".join(rows) + "\n"


def _call(result: ClauseResult) -> str:
    """Write one failing call with its numbers."""
    lines = [f"`{result.clause.id}`", ""]
    lines += [f"- {name}: {_code(value)}" for name, value in numbers(result)]
    if result.failure and result.failure.call:
        lines += ["", _block(clean(result.failure.call))]
    return "\n".join(lines) + "\n"


def _known(report: Report) -> list[str]:
    """List the declared deviations."""
    return [
        f"- `{result.clause.id}`: {_plain(result.deviation.reason)} "
        f"({_plain(result.deviation.link)})"
        for result in report.with_status(Status.DEVIATION)
        if result.deviation
    ]


def _unexpected(report: Report) -> list[str]:
    """List the deviations that were not seen."""
    return [f"- `{result.clause.id}`" for result in report.with_status(Status.UNEXPECTED_PASS)]


def _group(report: Report, status: Status) -> str:
    """Write clause ids under their common reason."""
    groups = by_reason(report.with_status(status))
    title = f"{status.value.capitalize()} ({_number(report, status)})"
    return _details(
        title, [f"- {_plain(why)}: {', '.join(f'`{i}`' for i in ids)}" for why, ids in groups]
    )


def _details(title: str, lines: list[str]) -> str:
    """Fold lines away under a title; nothing for none."""
    if not lines:
        return ""
    body = "\n".join(lines)
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>\n"


def _plain(text: str) -> str:
    """Keep a text from being read as HTML or Markdown structure."""
    safe = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]])", r"\\\1", safe)


def _cell(text: str) -> str:
    """Keep a text inside a table's cell."""
    return _plain(text).replace("|", "\\|")


def _code(text: str) -> str:
    """Write inline code, whatever backticks it holds."""
    plain = one_line(text)
    fence = "`" * (_longest_ticks(plain) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _block(code: str) -> str:
    """Write a code block, whatever fences it holds."""
    fence = "`" * max(3, _longest_ticks(code) + 1)
    return f"{fence}python\n{code.rstrip()}\n{fence}"


def _longest_ticks(text: str) -> int:
    """Measure the longest run of backticks."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
