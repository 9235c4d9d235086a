"""What the page needs of a run, small enough to be kept beside it: medians instead of samples."""

from __future__ import annotations

from typing import Any, Final

from embconform.performance.cuda_targets.document import Document
from embconform.performance.statistics import median

DIGITS: Final = 9
"""So many that rounding twice shows in no table."""
_ROW: Final = ("group", "label", "count", "ids", "bytes", "floor_seconds")
_RESULT: Final = (
    "name", "ours", "status", "detail", "time", "share_of_copy", "over_floor", "verdicts", "met",
)  # fmt: skip


def digest(document: Document, label: str) -> Document:
    """Keep what :mod:`page` makes its tables of.

    Parameters
    ----------
    document : dict
        Of a run, or a digest.
    label : str
        What the run is called from now on; empty to leave its name.

    Returns
    -------
    dict
    """
    rows = {
        name: {key: entry[key] for key in _ROW} | {"results": list(map(_kept, entry["results"]))}
        for name, entry in document["rows"].items()
    }
    ceilings = {
        way: {size: [median(found).value] for size, found in by.items()}
        for way, by in document["ceilings_ns"].items()
    }
    changed = {"label": label or document["label"], "digest": True}
    kept: Document = _rounded(document | changed | {"ceilings_ns": ceilings, "rows": rows})
    return kept


def _kept(result: Document) -> Document:
    return {key: result[key] for key in _RESULT if key in result}


def _rounded(data: Any) -> Any:
    """Leave :data:`DIGITS` digits of each float."""
    match data:
        case float():
            return float(f"{data:.{DIGITS}g}")
        case dict():
            return {key: _rounded(value) for key, value in data.items()}
        case list():
            return [_rounded(value) for value in data]
        case _:
            return data
