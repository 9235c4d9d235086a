"""The report that fits a comment on a pull request, and that a reviewer reads in ten seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from embconform.conformance.render.changes import GOOD, Change, Comparison, Kind, nearest
from embconform.conformance.render.json import as_dict
from embconform.conformance.render.markup import (
    ROOM,
    block,
    cell,
    code,
    details,
    fitted,
    link,
    plain,
    table,
)
from embconform.conformance.render.matrix.model import Column
from embconform.conformance.render.matrix.reading import column
from embconform.conformance.render.wording import (
    broken,
    by_reason,
    counts,
    happened,
    headline,
    numbers,
)
from embconform.conformance.report import ClauseResult, Report, Status

_IN_SIGHT: Final = 8
"""Rows of a table that are not folded away."""
_MOST: Final = 50
_HEADS: Final = ("clause", "level", "what happened")
_CHANGED: Final = ("clause", "base", "now", "what happened")


def render(reports: Sequence[Report], base: Sequence[Column] | None = None) -> str:
    """Write reports as Markdown.

    Parameters
    ----------
    reports : sequence of Report
    base : sequence of Column, optional
        Earlier reports; what changed since the one of a target is told first.

    Returns
    -------
    str
        Short enough for a comment: what doesn't fit is left out, and said to be.
    """
    overview = _overview(reports) if len(reports) > 1 else ""
    room = (ROOM - len(overview)) // max(1, len(reports))
    written = [_report(report, base, room) for report in reports]
    return "\n".join(filter(None, [overview, *written]))


def _overview(reports: Sequence[Report]) -> str:
    """Say one line of each target."""
    rows = [(cell(report.target), _signed(report), headline(report)) for report in reports[:_MOST]]
    more = [(f"and {len(reports) - _MOST} more", "", "")] * (len(reports) > _MOST)
    return table(("target", "verdict", ""), [*rows, *more])


def _signed(report: Report) -> str:
    return f"{'✅' if report.conformant else '❌'} {report.verdict}"


def _report(report: Report, base: Sequence[Column] | None, room: int) -> str:
    """Write one target, its sections in order of use until the room is used up."""
    failed, warned = broken(report)
    tally = ", ".join(f"{number} {status.value}" for status, number in counts(report))
    sign = "✅" if report.conformant else "❌"
    since = [] if base is None else _since(report, base)
    shown = len(since) == 0
    return fitted(
        [
            f"### {sign} embconform: {code(report.target)} is {report.verdict}\n",
            f"{headline(report)}: {tally}; {report.cases:,} cases\n",
            *since,
            _broken(failed[:_IN_SIGHT]) if shown else "",
            details(
                f"{'All broken' if shown else 'Broken'} clauses ({len(failed)})",
                [_broken(failed)] if not shown or len(failed) > _IN_SIGHT else [],
            ),
            details("Smallest failing calls", [_call(r) for r in failed[:_IN_SIGHT] if r.failure]),
            details(f"Known deviations ({_number(report, Status.DEVIATION)})", _known(report)),
            details(f"Warnings: broken SHOULD clauses ({len(warned)})", [_broken(warned)]),
            *(_group(report, status) for status in (Status.UNTESTED, Status.UNSUPPORTED)),
            details("Unexpected passes", _unexpected(report)),
            details("How to repeat it", _run(report)),
        ],
        room,
    )


def _since(report: Report, base: Sequence[Column]) -> list[str]:
    """Say what changed since the base report, what is bad in sight."""
    now = column(as_dict(report))
    before = nearest(base, now)
    if before is None:
        return [f"**Since the base report**: it says nothing of {code(report.target)}\n"]
    found = Comparison(before, now)
    bad = [change for change in found.changes if change.kind not in GOOD]
    number = Counter(change.kind for change in found.changes)
    told = ", ".join(f"{number[kind]} {kind.value}" for kind in Kind if number[kind])
    return [
        f"**Since the base report**, which was {before.verdict}: {told or 'no clause changed'}\n",
        _not_the_same(found),
        table(_CHANGED, map(_change, bad[:_IN_SIGHT])),
        details(
            f"All {len(bad)} changes for the worse, or to look at",
            [table(_CHANGED, map(_change, bad[:_MOST])), _further(bad)]
            if len(bad) > _IN_SIGHT
            else [],
        ),
        *(
            details(f"{kind.value.capitalize()} ({number[kind]})", [_ids(found.of(kind))])
            for kind in Kind
            if kind in GOOD
        ),
    ]


def _not_the_same(found: Comparison) -> str:
    """Name what differs between the runs and may be why clauses do."""
    told = [f"{code(name)} {code(was)}, now {code(is_)}" for name, was, is_ in found.differences]
    own = [note for note in found.before.notes if note not in found.now.notes]
    notes = [f"of the base report: {code(note)}" for note in own]
    if not told and not notes:
        return ""
    return f"The runs are not the same: {'; '.join([*told, *notes][:_MOST])}\n"


def _change(change: Change) -> tuple[str, ...]:
    now, before = change.now, change.before
    happened = ""
    if now is not None:
        told = now.trouble.message if now.trouble else now.detail
        declared = f"declared: {now.reason} ({now.link})" if now.reason else ""
        happened = declared if now.status is Status.DEVIATION else told or declared
    statuses = [each.status.value if each else "not in it" for each in (before, now)]
    clause = f"{cell(change.clause)}<br>{change.kind.value}"
    return (clause, *statuses, cell(happened) if happened else "")


def _further(changes: Sequence[Change]) -> str:
    return f"and {len(changes) - _MOST} more\n" if len(changes) > _MOST else ""


def _ids(changes: Sequence[Change]) -> str:
    more = f" and {len(changes) - _MOST} more" if len(changes) > _MOST else ""
    return ", ".join(code(change.clause) for change in changes[:_MOST]) + more


def _number(report: Report, status: Status) -> int:
    return len(report.with_status(status))


def _broken(results: Sequence[ClauseResult]) -> str:
    """Write clauses and what became of them."""
    rows = [
        (
            f"{cell(result.clause.id)}<br>{plain(result.clause.sentence)}",
            result.clause.level.value,
            cell(happened(result) or result.status.value),
        )
        for result in results[:_MOST]
    ]
    more = [(f"and {len(results) - _MOST} more", "", "")] * (len(results) > _MOST)
    return table(_HEADS, [*rows, *more])


def _call(result: ClauseResult) -> str:
    """Write one failing call with its numbers."""
    lines = [code(result.clause.id), ""]
    lines += [f"- {name}: {code(value)}" for name, value in numbers(result)]
    if result.failure and result.failure.call:
        lines += ["", block(result.failure.call)]
    return "\n".join(lines) + "\n"


def _known(report: Report) -> list[str]:
    """List the declared deviations."""
    return [
        f"- {code(result.clause.id)}: {code(result.deviation.reason)} "
        f"({link(result.deviation.link)})"
        for result in report.with_status(Status.DEVIATION)
        if result.deviation
    ]


def _unexpected(report: Report) -> list[str]:
    """List the deviations that were not seen."""
    return [f"- {code(each.clause.id)}" for each in report.with_status(Status.UNEXPECTED_PASS)]


def _group(report: Report, status: Status) -> str:
    """Write clause ids under their common reason."""
    title = f"{status.value.capitalize()} ({_number(report, status)})"
    groups = by_reason(report.with_status(status))
    return details(title, [f"- {code(why)}: {', '.join(map(code, ids))}" for why, ids in groups])


def _run(report: Report) -> list[str]:
    """Say how the run was made."""
    versions = ", ".join(f"{code(name)} {code(said)}" for name, said in report.environment.items())
    lines = [
        f"- {report.cases:,} cases in {report.seconds:.1f} s, seed {report.seed}, "
        f"{code(report.budget)} budget, {code(report.device)}",
        f"- {versions}" if versions else "",
        *(f"- {code(note)}" for note in report.notes),
        f"\n{block(report.replay, 'sh')}" if report.replay else "",
    ]
    return [line for line in lines if line]
