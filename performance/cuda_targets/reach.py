"""Whether bytes leave room for a target: the time it asks for against the floor of its row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from embconform.performance.cuda_targets.ceilings import HOT
from embconform.performance.cuda_targets.contenders import ATEN, INDUCTOR
from embconform.performance.cuda_targets.document import Document
from embconform.performance.cuda_targets.race import EMPTY
from embconform.performance.cuda_targets.rows import CLIFF
from embconform.performance.cuda_targets.verdicts import (
    BACKWARD,
    BACKWARD_FLOOR,
    EQUAL,
    LAUNCH,
    MAX_NORM,
    SHARE,
)
from embconform.performance.statistics import median

MOST_SAID: Final = 100
"""Floors beyond which their number says nothing but that bytes are no limit."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The strictest target of a row.

    Attributes
    ----------
    target : str
    seconds : float
        What it asks for.
    floor : float
        Seconds of the row's bytes at the copy bandwidth.
    hot : float or None
        Seconds of a copy that writes as much, out of L2, which is what lookups of few rows are
        most like; None elsewhere, and where it was not measured.
    cached : bool
        Whether bytes may come from L2, so that the floor is no bound: launches in a graph.
    """

    target: str
    seconds: float
    floor: float
    hot: float | None
    cached: bool

    @property
    def possible(self) -> bool:
        """Whether the target asks for no more than copying does."""
        return self.seconds >= self.floor

    @property
    def said(self) -> str:
        """The target, in floors and hot copies."""
        said = [self.target]
        if self.seconds < MOST_SAID * self.floor and not self.target.endswith("floor"):
            said.append(f"{self.seconds / self.floor:.2f}x floor")
        if self.hot:
            said.append(f"{self.seconds / self.hot:.2f}x {HOT}")
        return ", ".join(said)


def reach(document: Document, name: str) -> Reach | None:
    """Find the strictest target of a row, out of what was measured in it.

    Parameters
    ----------
    document : dict
        Of a run.
    name : str
        Of the row.

    Returns
    -------
    Reach or None
        None where the row was not measured, has no target, or nothing to compare it with.
    """
    entry = document["rows"].get(name)
    asked = list(_asked(entry)) if entry else []
    if not entry or not asked:
        return None
    seconds, target = min(asked)
    hot = _hot(document, entry) if (entry["group"], entry["ids"]) == ("forward", "zipf") else None
    return Reach(target, seconds, entry["floor_seconds"], hot, entry["group"] == "small")


def _hot(document: Document, entry: Document) -> float | None:
    """Give the seconds of a hot copy that writes as many bytes, to 1%, as a row does."""
    written = entry["bytes"]["written"]
    for size, found in document["ceilings_ns"].get(HOT, {}).items():
        if abs(int(size) - written) < 0.01 * written:
            return median(found).value * 1e-9
    return None


def _asked(entry: Document) -> Iterator[tuple[float, str]]:
    """Give the seconds that each target asks for."""
    floor = entry["floor_seconds"]
    times = {r["name"]: r["time"]["value"] for r in entry["results"] if r["time"]}
    match entry["group"]:
        case "forward":
            yield floor / SHARE, f"{SHARE:.0%} of copying"
            yield from ((times[peer], peer) for peer in (ATEN, INDUCTOR) if peer in times)
        case "small" if EMPTY in times:
            yield LAUNCH * times[EMPTY], f"{LAUNCH:g}x {EMPTY}"
        case "backward":
            yield BACKWARD_FLOOR * floor, f"{BACKWARD_FLOOR:g}x floor"
            if ATEN in times:
                yield times[ATEN] / BACKWARD, f"{ATEN} / {BACKWARD:g}"
        case "equal" if ATEN in times and entry["count"] not in CLIFF:
            yield times[ATEN] / EQUAL, f"{ATEN} / {EQUAL:g}"
        case "max_norm" if ATEN in times:
            yield times[ATEN] / MAX_NORM, f"{ATEN} / {MAX_NORM:g}"
