"""The report that a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

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

LIMIT: Final = 10
"""Broken clauses that are shown; the rest are counted."""
IN_FULL: Final = 5
"""Those of them that are shown with their numbers and their call."""
_WIDEST: Final = 110
COLOURS: Final = {
    Status.PASS: "green",
    Status.FAIL: "bold red",
    Status.CRASH: "bold red",
    Status.TIMEOUT: "bold red",
    Status.DEVIATION: "yellow",
    Status.UNEXPECTED_PASS: "yellow",
    Status.UNTESTED: "magenta",
    Status.UNSUPPORTED: "dim",
}


class _Page:
    """Writes lines: prose wrapped where a person's terminal ends, code never."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = min(console.width, _WIDEST) if console.is_terminal else 0

    def line(self, *parts: tuple[str, str], indent: int = 0) -> None:
        """Write one line of styled parts as it is."""
        text = Text(" " * indent)
        for words, style in parts:
            text.append(words, style)
        self.console.print(text, soft_wrap=True, highlight=False)

    def wrapped(self, *parts: tuple[str, str], indent: int = 0, hang: int = 0) -> None:
        """Write styled parts over as many lines as a terminal needs."""
        text = Text.assemble(*parts)
        lines = [text]
        if self.width:
            room = max(self.width - indent - hang, 20)
            lines = list(text.wrap(self.console, room, overflow="fold"))
        for number, piece in enumerate(lines):
            piece.rstrip()
            margin = " " * (indent + (hang if number else 0))
            self.console.print(Text(margin) + piece, soft_wrap=True, highlight=False)

    def prose(self, words: str, style: str = "", indent: int = 0, hang: int = 0) -> None:
        """Write a sentence."""
        self.wrapped((words, style), indent=indent, hang=hang)

    def code(self, text: str, indent: int) -> None:
        """Write code line by line."""
        for piece in clean(text).rstrip("\n").split("\n"):
            self.line((piece, "cyan"), indent=indent if piece else 0)

    def heading(self, words: str) -> None:
        """Start a section."""
        self.line()
        self.prose(words, "bold", hang=2)


def render(report: Report, console: Console) -> None:
    """Write a report for a person: the verdict first, then what to do about it.

    Parameters
    ----------
    report : Report
    console : rich.console.Console
        Where it is not a terminal, no line is wrapped and nothing is coloured.
    """
    page = _Page(console)
    _verdict(page, report)
    failed, warned = broken(report)
    _failures(page, failed)
    _warnings(page, warned)
    _deviations(page, report)
    _unexpected(page, report)
    _untested(page, report)
    _unsupported(page, report)
    if report.tampered:
        page.heading("Tampered with (functions that the target has replaced; this counts)")
        page.prose(", ".join(report.tampered), indent=2, hang=2)
    if report.notes:
        page.heading("Notes")
        for note in report.notes:
            page.prose(one_line(note), indent=2, hang=2)
    if report.replay:
        page.line()
        page.line(("replay  ", "dim"), (one_line(report.replay), ""))


def render_summary(reports: Sequence[Report], console: Console) -> None:
    """Write one line a target, for runs with several.

    Parameters
    ----------
    reports : sequence of Report
    console : rich.console.Console
    """
    page = _Page(console)
    page.heading("Summary")
    widest = max(len(one_line(report.target)) for report in reports)
    for report in reports:
        page.line(
            (one_line(report.target).ljust(widest + 2), ""),
            (report.verdict.ljust(15), _verdict_style(report)),
            (headline(report), "dim"),
            indent=2,
        )


def _verdict_style(report: Report) -> str:
    return "bold green" if report.conformant else "bold red"


def _verdict(page: _Page, report: Report) -> None:
    """Write the verdict and the counts."""
    page.wrapped(
        (one_line(report.target), "bold"),
        ("  ", ""),
        (report.verdict, _verdict_style(report)),
        (f"  {headline(report)}", ""),
        hang=2,
    )
    told: list[tuple[str, str]] = []
    for status, number in counts(report):
        told += [("  " if told else "", ""), (f"{number} {status.value}", COLOURS[status])]
    page.wrapped(*told, indent=2)
    strict = ", strict" if report.strict else ""
    page.line(
        (
            f"{report.cases:,} cases in {report.seconds:.1f} s, seed {report.seed}, "
            f"{report.budget} budget, {report.device}{strict}",
            "dim",
        ),
        indent=2,
    )


def _failures(page: _Page, results: list[ClauseResult]) -> None:
    """Write the broken clauses that count, the first ones each with its smallest call."""
    if not results:
        return
    page.heading("Broken")
    for number, result in enumerate(results[:IN_FULL]):
        if number:
            page.line()
        _title(page, result)
        page.prose(happened(result), indent=4, hang=2)
        for name, value in numbers(result):
            page.line((f"{name:<7}", "dim"), (value, ""), indent=4)
        if result.failure and result.failure.call:
            page.line()
            page.code(result.failure.call, indent=6)
    if len(results) > IN_FULL:
        page.line()
    _briefly(page, results[IN_FULL:LIMIT])
    _and_more(page, results[LIMIT:])


def _briefly(page: _Page, results: list[ClauseResult]) -> None:
    """Write broken clauses in a few lines each."""
    for result in results:
        _title(page, result)
        message = happened(result)
        values = [(name, one_line(value)) for name, value in numbers(result)]
        told = "; ".join(f"{name} {value}" for name, value in values if value not in message)
        page.prose(f"{message}{f' ({told})' if told else ''}", indent=4, hang=2)


def _and_more(page: _Page, results: list[ClauseResult]) -> None:
    """Count what isn't shown, by group of clauses."""
    if not results:
        return
    groups = Counter(result.clause.group for result in results)
    told = ", ".join(f"{number} {group}" for group, number in groups.items())
    page.line()
    page.prose(
        f"and {len(results)} more ({told}); --json FILE and --repro-dir DIR have all",
        indent=2,
        hang=2,
    )


def _title(page: _Page, result: ClauseResult) -> None:
    """Write a clause's id, level, how often it broke, and its sentence."""
    tally = ""
    if result.exercised:
        tally = f"  {result.failed:,} of {result.exercised:,} cases"
    status = "" if result.status is Status.FAIL else f"  {result.status.value}"
    page.line(
        (result.clause.id, "bold red"),
        (f"  {result.clause.level.value}", ""),
        (status, "red"),
        (tally, "dim"),
        indent=2,
    )
    page.prose(result.clause.sentence, "italic", indent=4)


def _warnings(page: _Page, results: list[ClauseResult]) -> None:
    """Write the broken SHOULD clauses of a run that isn't strict."""
    if not results:
        return
    page.heading("Warnings (SHOULD: worth knowing, don't count unless --strict)")
    _briefly(page, results[:LIMIT])
    _and_more(page, results[LIMIT:])


def _deviations(page: _Page, report: Report) -> None:
    """Write the declared failures that were seen."""
    results = report.with_status(Status.DEVIATION)
    if not results:
        return
    page.heading("Known deviations (declared, so they don't count)")
    for result in results:
        known = result.deviation
        told = f": {one_line(known.reason)} ({one_line(known.link)})" if known else ""
        page.prose(f"{result.clause.id}{told}", indent=2, hang=2)


def _unexpected(page: _Page, report: Report) -> None:
    """Write the declared failures that were not seen."""
    results = report.with_status(Status.UNEXPECTED_PASS)
    if not results:
        return
    counted = "they count" if report.strict else "they count under --strict"
    page.heading(f"Unexpected passes (declared as deviations, but they hold; {counted})")
    for result in results:
        reason = f": {one_line(result.deviation.reason)}" if result.deviation else ""
        page.prose(f"{result.clause.id}{reason}", indent=2, hang=2)


def _untested(page: _Page, report: Report) -> None:
    """Write the clauses that no case exercised."""
    results = report.with_status(Status.UNTESTED)
    for title, counted in (
        ("Untested (no case exercised them; they count)", True),
        ("Untested (no case exercised them; they don't count)", False),
    ):
        some = [result for result in results if report.counts_against(result) is counted]
        _groups(page, title, some)


def _unsupported(page: _Page, report: Report) -> None:
    """Write what the backend doesn't claim to do."""
    _groups(page, "Unsupported", report.with_status(Status.UNSUPPORTED))


def _groups(page: _Page, title: str, results: list[ClauseResult]) -> None:
    """Write clause ids under their common reason."""
    if not results:
        return
    page.heading(title)
    for reason, ids in by_reason(results):
        page.prose(f"{reason}: {', '.join(ids)}", indent=2, hang=2)
