"""A run in the terminal: a line for each result as it comes in, and a compact table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from embconform.performance.cuda_targets.ceilings import CEILINGS, HOT
from embconform.performance.cuda_targets.document import DRY, Document
from embconform.performance.statistics import median

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
    for key, way in (("share_of_like_copy", "copy"), ("share_of_hot_copy", HOT)):
        if result[key] is not None:
            said.append(f"{result[key]:.1%} of a {way} of this size")
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
            said.append(f"{'':<26}{'floor':>8}" + "".join(f"{shorten(n):>11}" for n in names))
        cells = "".join(f"{_cell(result):>11}" for result in entry["results"])
        said.append(f"{shorten(name):<26}{micro(entry['floor_seconds']):>8}{cells}")
    said += ["", *summary(document)]
    return "\n".join(line.rstrip() for line in said)


def _cell(result: Document) -> str:
    if result["time"] is None:
        return "!" if result["status"] != "absent" else "absent"
    return micro(result["time"]["value"]) + MARKS[result["met"]]


def summary(document: Document) -> Iterator[str]:
    """Count what was met, target by target, with rows that missed; then say what else to know.

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
        for tally in tallies(document):
            missed = f"; missed: {shorten(tally.shown)}" if tally.missed else ""
            who = shorten(tally.contender)
            yield f"{tally.group}, {who}, {tally.target}: {tally.said}{missed}"
    yield from (f"{name}: {why}" for name, why in sorted(_broken(document).items()))
    yield from rates(document)
    for chip in document["chips"][:1] + document["chips"][-1:]:
        yield ", ".join(f"{key} {value}" for key, value in chip.items() if value != "")
    if document["left_out"]:
        yield f"{len(document['left_out'])} rows left out for lack of time"
    yield from document["notes"]


def rates(document: Document) -> Iterator[str]:
    """Say how fast bytes were moved in each way, by how many.

    Parameters
    ----------
    document : dict

    Yields
    ------
    str
    """
    for ceiling in CEILINGS:
        found = document["ceilings_ns"].get(ceiling.name, {})
        said = ", ".join(
            f"{int(size) / 2**20:.0f} MiB {ceiling.each * int(size) / median(ns).value:.0f}"
            for size, ns in found.items()
        )
        if said:
            yield f"{ceiling.name}, GB/s {ceiling.counted}: {said}"


@dataclass(frozen=True, slots=True)
class Tally:
    """A target over all rows of a group.

    Attributes
    ----------
    group, contender, target : str
    met : int
    missed : list of str
        Rows with the numbers that decide.
    lacking : str
        What the target is relative to, if no row could be judged without it; else empty.
    """

    group: str
    contender: str
    target: str
    met: int
    missed: list[str]
    lacking: str

    @property
    def said(self) -> str:
        """How many of how many."""
        if self.lacking:
            return f"not judged without {self.lacking}"
        return f"{self.met} of {self.met + len(self.missed)} met"

    @property
    def shown(self) -> str:
        """The first rows that missed; empty if none did."""
        return ", ".join(self.missed[:2]) + ", ..." * (len(self.missed) > 2)


def tallies(document: Document) -> Iterator[Tally]:
    """Count the verdicts by group, contender and target.

    Parameters
    ----------
    document : dict

    Yields
    ------
    Tally
    """
    found: dict[tuple[str, str, str], list[tuple[bool | None, str]]] = {}
    for name, entry in document["rows"].items():
        for result in entry["results"]:
            for verdict in result["verdicts"]:
                target = verdict["target"].partition(" the growth")[0]
                key = (f"{entry['group']} {_size(entry)}".strip(), result["name"], target)
                found.setdefault(key, []).append((verdict["met"], f"{name} {verdict['said']}"))
    for key, judged in found.items():
        known = [(done, said) for done, said in judged if done is not None]
        missed = [said for done, said in known if not done]
        lacking = "" if known else judged[0][1].split()[-1]
        yield Tally(*key, len(known) - len(missed), missed, lacking)


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
