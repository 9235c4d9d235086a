"""The table of docs/performance-cuda.md: what was predicted, and what runs have found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from embconform.performance.cuda_targets.contenders import ATEN
from embconform.performance.cuda_targets.counts import (
    SPEEDS,
    expected_distinct,
    operations,
    traffic,
)
from embconform.performance.cuda_targets.digest import digest
from embconform.performance.cuda_targets.document import Document
from embconform.performance.cuda_targets.inputs import PLAIN_EXPONENT
from embconform.performance.cuda_targets.reach import MOST_SAID, reach
from embconform.performance.cuda_targets.rows import Row, plan
from embconform.performance.cuda_targets.tables import MARKS, micro, rates, shorten, tallies

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
    kept = [digest(document, "") for document in documents]  # a page is what its digests make
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} followed by {END}")
    return f"{before}{BEGIN}\n\n{table(kept)}\n{END}{after}"


def table(documents: Sequence[Document]) -> str:
    """Write the table, and below it what the last of the runs says beyond single rows.

    Parameters
    ----------
    documents : sequence of dict

    Returns
    -------
    str
        Markdown; a line a row, a column a prediction or a run, and the strictest target at the end.
    """
    labels = [_label(document) for document in documents] + ["reachable"] * bool(documents)
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
                *[_reachable(documents, row)][: len(documents)],
            ]
        )
    return _lines(lines) + "".join(
        f"\n{part}" for document in documents[-1:] for part in _below(document)
    )


def _reachable(documents: Sequence[Document], row: Row) -> str:
    """Hold the strictest target against the floor, in the last run that has the row."""
    for document in reversed(documents):
        asked = reach(document, row.name)
        if asked:
            never = "not from memory" if asked.cached else "no"
            return f"{'yes' if asked.possible else never}: {micro(asked.seconds)} ({asked.said})"
    return ""


def _below(document: Document) -> Iterator[str]:
    """Tell what was met, what can't be, and the rates that were reached."""
    header = ["rows", "contender", "target", "met", "missed, for instance"]
    met = [
        [tally.group, tally.contender, tally.target, tally.said.removesuffix(" met"), tally.shown]
        for tally in tallies(document)
    ]
    if met:
        yield f"### Targets met in {_label(document)}\n\n{_lines([header, ['---'] * 5, *met])}"
    impossible = _listed(_impossible(document))
    if impossible:
        yield f"### Below the floor of that run, and so out of reach\n\n{impossible}"
    yield f"### Ceilings of that run\n\n{_listed(rates(document))}"


def _lines(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _listed(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _impossible(document: Document) -> Iterator[str]:
    rate = document["copy_bytes_a_second"] / 1e12
    for name, entry in document["rows"].items():
        asked = reach(document, name)
        if asked and not asked.possible:
            moved = entry["bytes"]["total"]
            wanted = f"`{name}`: {asked.target} is {micro(asked.seconds)} µs"
            said = f"{wanted}; {moved / 1e6:.3g} MB at {rate:.2f} TB/s take {micro(asked.floor)} µs"
            needed = moved / asked.seconds / 1e12
            yield f"{said}, so L2 would have to give {needed:.1f} TB/s" if asked.cached else said


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
        compared = (result["ours"] or result["name"] == ATEN) and over < MOST_SAID
        said.append(f"{shown} ({over:.2f}x)" if compared else shown)
    return "; ".join(said)
