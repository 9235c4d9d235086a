"""A run of the gate for a terminal, a program, a pull request and a CI service."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from typing import Any, Final
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.table import Table
from rich.text import Text

from embconform import __version__
from embconform.performance.gate.course import PLANTED, SILENT, Track
from embconform.performance.gate.instructions import Instructions, Witness
from embconform.performance.gate.report import GateReport, Row, Verdict
from embconform.performance.gate.revisions import Tree

SCHEMA: Final = 1
_COLOUR: Final = {
    Verdict.FINE: "green",
    Verdict.REGRESSION: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.VOID: "yellow",
}
_NOTHING: Final = "\u200b"
"""A space of no width: after it no forge takes @ for a person, # for an issue or :// for a link."""
_TOLD: Final = "system-out"
"""JUnit's element for what a test that passed has to say."""
_HEADS: Final = ("benchmark", "base", "head", "change", "95% interval", "matters from", "verdict")


def terminal(report: GateReport, console: Console) -> None:
    """Print a run.

    Parameters
    ----------
    report : GateReport
    console : Console
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for k, head in enumerate(_HEADS):
        table.add_column(head, justify="left" if k in (0, 6) else "right", overflow="fold")
    for row in report.rows:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    console.print(Text(f"{report.target}: {report.head.said} against {report.base.said}"))
    if report.rows:
        console.print(table)
    for line in _facts(report):
        console.print(Text(line, "dim"))
    console.print(Text(report.verdict.value, f"bold {_COLOUR[report.verdict]}"))
    for line in report.reasons:
        console.print(Text(f"  {line}"))


def markdown(report: GateReport) -> str:
    """Write a run for a comment on a pull request.

    Parameters
    ----------
    report : GateReport

    Returns
    -------
    str
    """
    sign = {"fine": "✅", "regression": "❌"}.get(report.verdict.value, "⚠️")
    lines = [f"### {sign} embconform gate: {report.verdict.value}", ""]
    lines += [f"- {_plain(line)}" for line in report.reasons]
    head, base = _plain(report.head.said), _plain(report.base.said)
    lines += ["", f"{_code(report.target)}: {head} against {base}", ""]
    if report.rows:
        lines += [f"| {' | '.join(_HEADS)} |", "|---|---:|---:|---:|---:|---:|---|"]
        lines += [f"| {' | '.join(map(_plain, _cells(row)))} |" for row in report.rows]
        lines.append("")
    lines += [f"- {_plain(line)}" for line in _facts(report)]
    lines += ["", f"Repeat: {_code(report.command)}", ""]
    return "\n".join(lines)


def as_json(report: GateReport) -> str:
    """Write a run for a program; times in seconds, memory in bytes, changes as fractions.

    Parameters
    ----------
    report : GateReport

    Returns
    -------
    str
    """
    clauses = report.clauses
    found = {
        "schema": SCHEMA,
        "embconform": __version__,
        "verdict": report.verdict.value,
        "reasons": report.reasons,
        "target": report.target,
        "base": _tree(report.base),
        "head": _tree(report.head),
        "benchmarks": [_row(row) for row in report.rows],
        "broken": report.broken,
        "left_out": list(report.left_out),
        "conformance": clauses
        and {
            "lost": clauses.lost,
            "gained": list(clauses.gained),
            "passed": clauses.passed,
            "cases": clauses.cases,
            "cut": clauses.cut,
        },
        "compiling": report.compilations and asdict(report.compilations),
        "instructions": report.witness and _witness(report, report.witness),
        "void": report.void,
        "restarts": report.restarts,
        "together": report.together,
        "apart": report.apart,
        "how": report.how,
        "calibration": report.quoted,
        "command": report.command,
        "environment": report.environment,
        "seconds": report.seconds,
    }
    return json.dumps(found, indent=2, allow_nan=False) + "\n"


def junit(report: GateReport) -> str:
    """Write a run for a CI service: a case a benchmark, and one for each clause that was lost.

    Parameters
    ----------
    report : GateReport

    Returns
    -------
    str
    """
    cases: list[tuple[str, str, str]] = []
    for row in report.rows:
        said = f"{row.change:+.1%}, 95% interval {row.interval[0]:+.1%} to {row.interval[1]:+.1%}"
        slower = row.verdict == "slower" and not report.void
        cases.append((f"speed.{row.name}", "failure" if slower else "", said))
        if row.verdict == "inconclusive" or report.void:
            why = row.track.why or "the run is void"
            cases[-1] = (f"speed.{row.name}", "error", f"inconclusive: {why}")
        costs = {"memory": row.weight, "accuracy": row.errors}
        cases += [
            (f"{what}.{row.name}", "failure" if cost.wrong else "", cost.wrong)
            for what, cost in costs.items()
            if cost
        ]
    if made := report.compilations:
        kind = "failure" if made.wrong else "error" if made.undecided else ""
        cases.append((f"compiling.{made.benchmark}", kind, made.wrong or made.undecided))
    cases += [(f"speed.{name}", "failure", said) for name, said in report.broken.items()]
    cases += [(f"speed.{line.partition(':')[0]}", "skipped", line) for line in report.left_out]
    cases += _witness_cases(report)
    if report.clauses:
        cut = report.clauses.cut
        cases.append(("conformance.kept", "error" if cut else "", cut))
        lost = report.clauses.lost.items()
        cases += [(f"conformance.{clause}", "failure", said) for clause, said in lost]
    suite = ET.Element("testsuite", name="embconform gate", tests=str(len(cases)))
    for kind, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(plural, str(sum(case[1] == kind for case in cases)))
    for name, kind, said in cases:
        case = ET.SubElement(suite, "testcase", classname=report.target, name=name)
        if kind == _TOLD:
            ET.SubElement(case, kind).text = said
        elif kind:
            ET.SubElement(case, kind, message=said)
    root = ET.Element("testsuites", name="embconform")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    low, high = row.interval
    verdict = row.verdict + (", more memory" if row.weight and row.weight.wrong else "")
    verdict += ", less accurate" if row.errors and row.errors.wrong else ""
    return (
        row.name,
        _time(row.base_seconds),
        _time(row.head_seconds),
        f"{row.change:+.1%}",
        f"{low:+.1%} to {high:+.1%}",
        f"{row.threshold:.1%}",
        verdict,
    )


def _facts(report: GateReport) -> list[str]:
    """Say what a reader needs to know before believing the verdict."""
    lines = []
    clauses = report.clauses
    if clauses is None:
        lines.append("conformance was not judged")
    else:
        gained = f", {len(clauses.gained)} gained" if clauses.gained else ""
        lines.append(
            f"conformance: {clauses.passed} clauses pass on both sides, {len(clauses.lost)} lost"
            f"{gained}; {clauses.cases} cases a side"
        )
    if report.rows:
        unseen = [row for row in report.rows if not row.track.seeing]
        planted = f"+10% planted in {len(report.rows)} benchmarks was seen in all but {len(unseen)}"
        if not unseen:
            planted = "+10% planted in each benchmark was seen"
        silent = "alarmed" if report.void else "silent"
        lines.append(f"controls: {planted}; head against head was {silent}")
    errors = [row.errors for row in report.rows if row.errors]
    if errors:
        worst = max(errors, key=lambda e: e.head_ulp)
        lines.append(f"gradients: off by {worst.head_ulp:.2g} ulp, base by {worst.base_ulp:.2g}")
    if made := report.compilations:
        (old, new), (before, now) = made.seconds, made.graphs
        lines.append(
            f"compiling: first call {new:.1f} s, base {old:.1f} s; {now} graphs, base {before} "
            f"({len(made.base)} fresh processes a side)"
        )
    if report.witness:
        lines += _witnessed(report, report.witness)
    lines += [f"left out: {line}" for line in report.left_out]
    how = "in one process" if report.together else f"in processes of their own: {report.apart}"
    lines.append(f"{report.restarts} restarts in {report.seconds:.0f} s, base and head {how}")
    lines.append(f"base and head: {report.how}")
    lines.append(
        report.quoted
        or "never calibrated on this machine: embconform gate --calibrate tells what it can see"
    )
    return lines


def _witnessed(report: GateReport, witness: Witness) -> list[str]:
    """Say what was counted, what it comes to, and what counts don't see."""
    lines = [f"instructions: {c.name}: {_counted(report, c)}" for c in witness.counts]
    lines += [f"instructions: not counted: {said}" for said in witness.left_out]
    if witness.counts:
        lines.append(
            f"instructions: counted under Valgrind in {witness.seconds:.0f} s; they see overhead, "
            "not where rows lie in memory (hot and random rows count the same), and decide nothing"
        )
    return lines


def _counted(report: GateReport, count: Instructions) -> str:
    return (
        f"{count.head:,.0f} a call, base {count.base:,.0f} ({count.change:+.2%}, told from "
        f"{count.limit:.2%}): {report.beside(count)}"
    )


def _witness(report: GateReport, witness: Witness) -> dict[str, Any]:
    return {
        "benchmarks": [
            {
                "name": count.name,
                "base": count.base,
                "base_again": count.again,
                "head": count.head,
                "change": count.change,
                "repeats_to": count.repeats_to,
                "told_from": count.limit,
                "says": count.says,
                "note": report.beside(count),
            }
            for count in witness.counts
        ],
        "left_out": list(witness.left_out),
        "seconds": witness.seconds,
    }


def _witness_cases(report: GateReport) -> list[tuple[str, str, str]]:
    """Give a case a count, none of which can fail."""
    if not report.witness:
        return []
    cases = [(f"instructions.{c.name}", _TOLD, _counted(report, c)) for c in report.witness.counts]
    left_out = report.witness.left_out
    return cases + [(f"instructions.{k}", "skipped", said) for k, said in enumerate(left_out, 1)]


def _row(row: Row) -> dict[str, Any]:
    low, high = row.interval
    return {
        "name": row.name,
        "verdict": row.verdict,
        "base_seconds": row.base_seconds,
        "head_seconds": row.head_seconds,
        "change": row.change,
        "low": _finite(low),
        "high": _finite(high),
        "threshold": _finite(row.threshold),
        "why": row.track.why,
        "head_against_head": _mean(row.track, SILENT),
        "planted": _mean(row.track, PLANTED),
        "planted_seen": row.track.seeing,
        "log_ratios": row.track.ratios,
        "confirming_log_ratios": row.track.confirmed,
        "memory": row.weight
        and {
            "base_peak_bytes": row.weight.base_peak,
            "head_peak_bytes": row.weight.head_peak,
            "base_kept_bytes": row.weight.base_kept,
            "head_kept_bytes": row.weight.head_kept,
            "wrong": row.weight.wrong,
        },
        "accuracy": row.errors and asdict(row.errors),
    }


def _tree(tree: Tree) -> dict[str, Any]:
    return {"revision": tree.name, "commit": tree.commit, "dirty": tree.dirty}


def _mean(track: Track, name: str) -> float | None:
    ratios = track.ratios[name]
    return math.expm1(sum(ratios) / len(ratios)) if ratios else None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _plain(text: str) -> str:
    """Keep a text from being read as Markdown, and from calling people and issues."""
    text = re.sub(r"[@#]|:(?=//)", lambda found: found[0] + _NOTHING, " ".join(text.split()))
    return "".join(f"\\{char}" if char in "|*_<>`[]\\" else char for char in text)


def _code(text: str) -> str:
    """Write inline code, whatever backticks it holds."""
    text = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"
