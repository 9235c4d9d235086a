"""A run in the terminal: a line for each result as it comes in, and a compact table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from embconform.performance.cuda_targets.document import DRY, Document

MARKS: Final = {True: "+", False: "-", None: " "}
_SHORT: Final = {
    "float32": "f32",
    "bfloat16": "bf16",
    "uniform": "uni",
    "forward": "fwd",
    "backward": "bwd",
    "max_norm": "norm",
    "cuda-cpp": "cpp",
    "triton": "tri",
    "inductor": "induct",
    " determ.": " det",
}


def lines_of(name: str, entry: Document, *, dry: bool) -> Iterator[str]:
    """Say everything about a row, a line a contender.

    Parameters
    ----------
    name : str
    entry : dict
        The row in the document.
    dry : bool

    Yields
    ------
    str
    """
    moved, floor = entry["bytes"]["total"], entry["floor_seconds"]
    yield f"{name}: {moved / 1e6:.2f} MB, floor {micro(floor)} us{f'; {DRY}' if dry else ''}"
    for result in entry["results"]:
        yield f"  {result['name']:<16} {_said(result, len(result['samples_ns']), dry=dry)}"


def _said(result: Document, count: int, *, dry: bool) -> str:
    if result["time"] is None:
        return f"{result['status']}: {result['detail']}"
    time, against = result["time"], result["over_aten"]
    said = [
        f"{micro(time['value']):>9} us",
        f"{result['share_of_copy']:7.1%} of copying",
        f"{result['over_floor']:7.2f}x floor",
        f"{against['value']:7.3f}x aten" if against else " " * 13,
    ]
    if not dry:
        said += [
            f"{_word(verdict['met'])} {verdict['target']} ({verdict['said']})"
            for verdict in result["verdicts"]
        ]
    if result["share_of_like_copy"] is not None:
        said.append(f"{result['share_of_like_copy']:.1%} of a copy of this size")
    if count < 50:
        said.append(f"{count} samples")
    if result["late"] > count / 2:
        said.append("the device waited for the host")
    if result["detail"]:
        said.append(result["detail"])
    return "; ".join(said)


def compact(document: Document) -> str:
    """Put a run in one line a row, then what was met, the rates and the chip.

    Parameters
    ----------
    document : dict

    Returns
    -------
    str
    """
    said = [
        "us a call; + all targets met, - some missed, ! wrong or broken; "
        "floor: bytes at the copy bandwidth"
    ]
    header: list[str] = []
    for name, entry in document["rows"].items():
        names = [result["name"] for result in entry["results"]]
        if names != header:
            header = names
            said.append(f"{'':<26}{'floor':>8}" + "".join(f"{shorten(n):>10}" for n in names))
        cells = "".join(f"{_cell(result):>10}" for result in entry["results"])
        said.append(f"{shorten(name):<26}{micro(entry['floor_seconds']):>8}{cells}")
    said += ["", *summary(document)]
    return "\n".join(line.rstrip() for line in said)


def _cell(result: Document) -> str:
    if result["time"] is None:
        return "!" if result["status"] != "absent" else "absent"
    return micro(result["time"]["value"]) + MARKS[result["met"]]


def summary(document: Document) -> Iterator[str]:
    """Count what was met, target by target, with the worst row; then say what else to know.

    Parameters
    ----------
    document : dict

    Yields
    ------
    str
    """
    if document["said"]:
        yield f"{document['said']}: no target is judged"
    else:
        yield from _counts(document)
    yield from (f"{name}: {why}" for name, why in sorted(_broken(document).items()))
    rates = ", ".join(
        f"{int(size) / 2**20:.0f} MiB {2 * int(size) / sorted(found)[len(found) // 2]:.0f}"
        for size, found in document["copies_ns"].items()
    )
    yield f"copies, GB/s read and written, by bytes read: {rates}"
    for chip in document["chips"][:1] + document["chips"][-1:]:
        yield ", ".join(f"{key} {value}" for key, value in chip.items() if value != "")
    if document["left_out"]:
        yield f"{len(document['left_out'])} rows left out for lack of time"
    yield from document["notes"]


def _counts(document: Document) -> Iterator[str]:
    """Sum the verdicts up by group, contender and target."""
    found: dict[tuple[str, str, str], list[tuple[bool | None, str]]] = {}
    for name, entry in document["rows"].items():
        for result in entry["results"]:
            for verdict in result["verdicts"]:
                target = verdict["target"].partition(" the growth")[0]
                key = (f"{entry['group']} {_size(entry)}".strip(), result["name"], target)
                found.setdefault(key, []).append((verdict["met"], f"{name} {verdict['said']}"))
    for (group, contender, target), judged in found.items():
        met = sum(1 for done, _ in judged if done)
        missed = [shorten(said) for done, said in judged if done is False]
        shown = f"; missed: {', '.join(missed[:2])}{', ...' * (len(missed) > 2)}" if missed else ""
        yield f"{group}, {shorten(contender)}, {target}: {met} of {len(judged)} met{shown}"


def _size(entry: Document) -> str:
    return str(entry["label"]) if entry["group"] == "forward" else ""


def _broken(document: Document) -> dict[str, str]:
    """Say of each contender why it is missing somewhere; the first reason of each kind."""
    found: dict[str, str] = {}
    for name, entry in document["rows"].items():
        for result in entry["results"]:
            if result["status"] != "ok":
                key = f"{result['name']} {result['status']}"
                found.setdefault(key, f"{shorten(name)}: {result['detail'][:200]}")
    return found


def _word(met: Any) -> str:
    return {True: "met", False: "MISSED", None: "not judged"}[met]


def micro(seconds: float) -> str:
    """Write microseconds with three digits or so."""
    us = seconds * 1e6
    digits = 0 if us >= 1_000 else 1 if us >= 100 else 2 if us >= 1 else 3
    return f"{us:.{digits}f}"


def shorten(name: str) -> str:
    """Abbreviate what a row or a contender is called."""
    for long, short in _SHORT.items():
        name = name.replace(long, short)
    return name
