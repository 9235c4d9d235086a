"""The table of docs/performance-cuda.md: what was predicted, and what runs have found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from embconform.performance.cuda_targets.contenders import ATEN
from embconform.performance.cuda_targets.counts import (
    SPEEDS,
    expected_distinct,
    operations,
    traffic,
)
from embconform.performance.cuda_targets.document import Document
from embconform.performance.cuda_targets.inputs import PLAIN_EXPONENT
from embconform.performance.cuda_targets.rows import Row, plan
from embconform.performance.cuda_targets.tables import MARKS, micro, shorten

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
SCALED: Final = 0.5
"""Share of the rows that max_norm scales."""


def fill(page: str, documents: Sequence[Document]) -> str:
    """Put the table between its marks, in place of what stands there.

    Parameters
    ----------
    page : str
    documents : sequence of dict
        Of runs on a device, in the order of their columns.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the page has no such marks, or a run was a dry one.
    """
    dry = [document["label"] for document in documents if document["said"]]
    if dry:
        raise ValueError(f"run {dry[0]!r} was a {documents[0]['said']}")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} followed by {END}")
    return f"{before}{BEGIN}\n\n{table(documents)}\n{END}{after}"


def table(documents: Sequence[Document]) -> str:
    """Write the table.

    Parameters
    ----------
    documents : sequence of dict

    Returns
    -------
    str
        Markdown; a line a row, a column a prediction or a run.
    """
    labels = [_label(document) for document in documents]
    header = ["row", "MB", "operations", *(f"{chip} floor, µs" for chip in SPEEDS), *labels]
    lines = [header, ["---", *["---:"] * (len(header) - 1 - len(labels)), *["---"] * len(labels)]]
    for row in plan():
        distinct = expected_distinct(row, PLAIN_EXPONENT)
        scaled = SCALED * distinct if row.group == "max_norm" else 0.0
        moved = traffic(row, distinct, scaled).total
        counted = operations(row, distinct, scaled)
        lines.append(
            [
                row.name,
                f"{moved / 1e6:.3g}" if moved < 1e8 else f"{moved / 1e6:.0f}",
                f"{counted:.2g}" if counted else "0",
                *(micro(moved / rate) for rate in SPEEDS.values()),
                *(_found(document, row) for document in documents),
            ]
        )
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _label(document: Document) -> str:
    gpu = document["environment"].get("gpu", "")
    named = f"{document['label']}, {gpu}" if document["label"] else gpu
    return f"{named}, {document['copy_bytes_a_second'] / 1e12:.2f} TB/s"


def _found(document: Document, row: Row) -> str:
    """List contenders with their times and marks."""
    entry = document["rows"].get(row.name)
    if entry is None:
        return ""
    said = []
    for result in entry["results"]:
        if result["time"] is None:
            if result["status"] != "absent":
                said.append(f"{shorten(result['name'])} {result['status']}")
            continue
        seconds, over = result["time"]["value"], result["over_floor"]
        mark = MARKS[result["met"]].strip()
        shown = f"{shorten(result['name'])} {micro(seconds)}{mark}"
        said.append(f"{shown} ({over:.2f}x)" if result["ours"] or result["name"] == ATEN else shown)
    return "; ".join(said)
