"""What the renderers share: safe text, counts and the order of statuses."""

from __future__ import annotations

from collections import Counter
from typing import Final

from embconform.conformance.report import BROKEN, ClauseResult, Report, Status

ORDER: Final = (
    Status.PASS,
    Status.FAIL,
    Status.CRASH,
    Status.TIMEOUT,
    Status.DEVIATION,
    Status.UNEXPECTED_PASS,
    Status.UNTESTED,
    Status.UNSUPPORTED,
)


def clean(text: str) -> str:
    """Escape what a terminal would obey or XML would refuse.

    Parameters
    ----------
    text : str
        Perhaps written by a target.

    Returns
    -------
    str
        Printable characters, line ends and spaces only.
    """
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text.expandtabs(4)
    )


def one_line(text: str) -> str:
    """Put a text in one line.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    return clean(" ".join(text.split()))


def broken(report: Report) -> tuple[list[ClauseResult], list[ClauseResult]]:
    """Divide the broken clauses.

    Parameters
    ----------
    report : Report

    Returns
    -------
    tuple of two lists of ClauseResult
        Those that count against the target, and those that don't.
    """
    results = report.with_status(*BROKEN)
    counted = [result for result in results if report.counts_against(result)]
    return counted, [result for result in results if not report.counts_against(result)]


def counts(report: Report) -> list[tuple[Status, int]]:
    """Count the clauses by status, leaving out statuses that no clause has."""
    found = Counter(result.status for result in report.clauses)
    return [(status, found[status]) for status in ORDER if found[status]]


def headline(report: Report) -> str:
    """Say in a few words what the verdict rests on."""
    words = [f"{report.profile.value} profile"]
    if report.interrupted:
        words.append("interrupted")
    if report.tampered:
        words.append("tampered with")
    failed, warned = (len(results) for results in broken(report))
    if failed:
        words.append(f"{failed} {_plural(failed, 'clause')} broken")
    untested = [r for r in report.with_status(Status.UNTESTED) if report.counts_against(r)]
    if untested:
        words.append(f"{len(untested)} untested")
    known = len(report.with_status(Status.DEVIATION))
    if known:
        words.append(f"{known} known {_plural(known, 'deviation')}")
    passes = len(report.with_status(Status.UNEXPECTED_PASS))
    if passes:
        words.append(f"{passes} unexpected {'pass' if passes == 1 else 'passes'}")
    if warned:
        words.append(f"{warned} {_plural(warned, 'warning')}")
    return ", ".join(words)


def happened(result: ClauseResult) -> str:
    """Say in one line what became of a clause, in the failure's words where there is one."""
    if result.failure and result.failure.message:
        return one_line(result.failure.message)
    return one_line(result.detail)


def numbers(result: ClauseResult) -> list[tuple[str, str]]:
    """List got, exact, bound and the error in ulp, leaving out what is not known."""
    failure = result.failure
    if failure is None:
        return []
    ulp = "" if failure.ulp is None else f"{failure.ulp:.4g} ulp"
    rows = [
        ("got", failure.got),
        ("exact", failure.exact),
        ("bound", failure.bound),
        ("error", ulp),
    ]
    return [(name, clean(value)) for name, value in rows if value]


def by_reason(results: list[ClauseResult]) -> list[tuple[str, list[str]]]:
    """Group clause ids by their detail."""
    groups: dict[str, list[str]] = {}
    for result in results:
        groups.setdefault(one_line(result.detail) or "no reason given", []).append(result.clause.id)
    return list(groups.items())


def _plural(number: int, noun: str) -> str:
    """Put a noun in the plural where it belongs."""
    return noun if number == 1 else f"{noun}s"
