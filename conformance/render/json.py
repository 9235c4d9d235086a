"""The report that a program reads."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

from embconform import __version__
from embconform.conformance.report import ClauseResult, Report
from embconform.conformance.running import part_record

SCHEMA: Final = 1


def as_dict(report: Report) -> dict[str, Any]:
    """Turn a report into plain data.

    Parameters
    ----------
    report : Report

    Returns
    -------
    dict
        With the keys of schema 1.
    """
    return {
        "schema": SCHEMA,
        "embconform": __version__,
        "target": report.target,
        "profile": report.profile.value,
        "device": report.device,
        "supports": None if report.able is None else sorted(report.able),
        "seed": report.seed,
        "budget": report.budget,
        "strict": report.strict,
        "verdict": report.verdict,
        "interrupted": report.interrupted,
        "tampered": list(report.tampered),
        "cases": report.cases,
        "seconds": _rounded(report.seconds),
        "environment": dict(report.environment),
        "notes": list(report.notes),
        "replay": report.replay,
        "clauses": [_clause(report, result) for result in report.clauses],
        "part": report.part and part_record.as_plain(report.part, report.target),
    }


def render(reports: Sequence[Report]) -> str:
    """Write reports as JSON.

    Parameters
    ----------
    reports : sequence of Report

    Returns
    -------
    str
        One object for one report, a list for several.
    """
    plain = [as_dict(report) for report in reports]
    document = plain[0] if len(plain) == 1 else plain
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _clause(report: Report, result: ClauseResult) -> dict[str, Any]:
    """Turn one clause's result into plain data."""
    clause, failure, deviation = result.clause, result.failure, result.deviation
    return {
        "id": clause.id,
        "level": clause.level.value,
        "profile": clause.profile,
        "status": result.status.value,
        "counts_against": report.counts_against(result),
        "exercised": result.exercised,
        "failed": result.failed,
        "seconds": _rounded(result.seconds),
        "detail": result.detail or (failure.message if failure else ""),
        "sentence": clause.sentence,
        "repro": (failure.script or None) if failure else None,
        "failure": failure
        and {
            "message": failure.message,
            "got": failure.got,
            "exact": failure.exact,
            "bound": failure.bound,
            "ulp": _finite(failure.ulp),
            "call": failure.call,
            "indices": failure.indices,
            "rows": failure.rows,
        },
        "deviation": deviation
        and {
            "reason": deviation.reason,
            "link": deviation.link,
            "versions": dict(deviation.versions),
        },
    }


def _finite(value: float | None) -> float | None:
    """Give a number that JSON has; infinite and NaN are null, and told in the message."""
    return value if value is not None and math.isfinite(value) else None


def _rounded(seconds: float) -> float:
    """Leave off digits that mean nothing."""
    return round(seconds, 4)
