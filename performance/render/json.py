"""The report that a program reads."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any, Final

from embconform import __version__
from embconform.performance.growth import Growth
from embconform.performance.measure import Result
from embconform.performance.run import BenchReport
from embconform.performance.statistics import CONFIDENCE, Estimate

SCHEMA: Final = 1


def as_dict(report: BenchReport) -> dict[str, Any]:
    """Turn a report into plain data.

    Parameters
    ----------
    report : BenchReport

    Returns
    -------
    dict
        With the keys of schema 1; times in seconds, memory in bytes.
    """
    request = report.request
    return {
        "schema": SCHEMA,
        "embconform": __version__,
        "targets": list(report.targets),
        "against": request.against,
        "device": request.device,
        "seed": request.seed,
        "threads": request.threads,
        "quick": request.quick,
        "confidence": CONFIDENCE,
        "seconds": report.seconds,
        "environment": dict(report.environment),
        "bandwidth": {str(size): rate for size, rate in sorted(report.bandwidth.items())},
        "results": [result_dict(result) for result in report.results],
        "growth": [_growth(growth) for growth in report.growth],
        "left_out": list(report.left_out),
        "notes": list(report.notes),
    }


def render(report: BenchReport) -> str:
    """Write a report as JSON.

    Parameters
    ----------
    report : BenchReport

    Returns
    -------
    str
    """
    return json.dumps(as_dict(report), indent=1, allow_nan=False) + "\n"


def result_dict(result: Result) -> dict[str, Any]:
    """Turn one result into plain data.

    Parameters
    ----------
    result : Result

    Returns
    -------
    dict
    """
    cell, workload = result.cell, result.cell.workload
    return {
        "target": result.target,
        "workload": workload.name,
        "rows": workload.rows,
        "width": workload.width,
        "indices": workload.count,
        "ids": workload.ids,
        "padding": workload.padding,
        "dtype": workload.dtype,
        "adapted": workload.adapted,
        "pass": cell.chosen.name,
        "cache": "cold" if cell.cold else "warm",
        "device": cell.device,
        "status": result.status.value,
        "detail": result.detail,
        "ranked": result.ranked,
        "time": _estimate(result.seconds),
        "ratio": _estimate(result.ratio),
        "floor": _number(result.floor_seconds),
        "share_of_ceiling": _number(result.share_of_ceiling),
        "moved": asdict(result.moved) if result.moved else None,
        "memory": asdict(result.memory) if result.memory else None,
        "compiled": asdict(result.compiled) if result.compiled else None,
        "warm_up": asdict(result.warm) if result.warm else None,
        "noise": asdict(result.noise) if result.noise else None,
        "checked": result.checked,
        "samples": list(result.samples),
    }


def _growth(growth: Growth) -> dict[str, Any]:
    return {
        "target": growth.target,
        "pass": growth.chosen,
        "variable": growth.variable,
        "sizes": list(growth.sizes),
        "seconds": list(growth.seconds),
        "exponent": _estimate(growth.exponent),
        "ranked": growth.ranked,
    }


def _estimate(found: Estimate | None) -> dict[str, float | None] | None:
    if found is None or not math.isfinite(found.value):
        return None
    return {"value": found.value, "low": _number(found.low), "high": _number(found.high)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
