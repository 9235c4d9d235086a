"""What a run has found, as plain data: one JSON file, from which every table is made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from embconform.performance.cuda_targets.ceilings import COPY, HOT
from embconform.performance.cuda_targets.contenders import ATEN
from embconform.performance.cuda_targets.counts import operations, traffic
from embconform.performance.cuda_targets.inputs import Inputs
from embconform.performance.cuda_targets.race import Runner, Status
from embconform.performance.cuda_targets.rows import Row
from embconform.performance.cuda_targets.verdicts import Samples, ratio, verdicts
from embconform.performance.statistics import Estimate, median

SCHEMA: Final = 2
REFERENCE: Final = 512 * 2**20
"""Copies of at least as many bytes, each way, make the bandwidth that all is held against."""
DRY: Final = "dry run, not a measurement"

Document = dict[str, Any]


@dataclass
class Record:
    """A run while it goes on.

    Attributes
    ----------
    device : str
    label : str
        What the user calls this version.
    environment : dict of str to str
    rows : dict of str to dict
        By name, in the order in which they were measured.
    ceilings : dict of str to dict of int to list of float
        Seconds of copies and of other ways to move bytes, by their sizes.
    chips : list of dict
        What NVML told, from the beginning to the end.
    left_out : list of str
        Rows that the time did not suffice for.
    notes : list of str
    """

    device: str
    label: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Document] = field(default_factory=dict)
    ceilings: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    chips: list[Document] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Bytes a second, read and written, of large copies: the median of all."""
        large = [
            2 * size / seconds
            for size, found in self.ceilings[COPY].items()
            if size >= REFERENCE or self.device != "cuda"
            for seconds in found
        ]
        return float(np.median(large))

    def seconds_of(self, name: str, size: int) -> float | None:
        """Give the median of what moving `size` bytes, to 1%, took in some way; None if unknown."""
        for known, found in self.ceilings.get(name, {}).items():
            if abs(known - size) < 0.01 * size:
                return float(np.median(found)) * size / known
        return None

    def add(self, name: str, inputs: Inputs, runners: list[Runner]) -> Document:
        """Keep what was found in a row.

        Parameters
        ----------
        name : str
            Of the row as it was planned; a dry run makes it smaller.
        inputs : Inputs
        runners : list of Runner

        Returns
        -------
        dict
            The row, judged.
        """
        row = inputs.row
        moved = traffic(row, inputs.distinct, inputs.scaled)
        results = [
            {
                "name": runner.offer.name,
                "ours": runner.offer.ours,
                "status": runner.status.value,
                "detail": runner.detail,
                "late": runner.late,
                "ready_seconds": round(runner.ready_seconds, 3),
                "samples_ns": [round(seconds * 1e9, 1) for seconds in runner.samples],
            }
            for runner in runners
        ]
        entry = {
            **asdict(row),
            "distinct": inputs.distinct,
            "scaled": inputs.scaled,
            "bytes": {"read": moved.read, "written": moved.written, "total": moved.total},
            "operations": operations(row, inputs.distinct, inputs.scaled),
            "results": results,
        }
        self.rows[name] = entry
        self._judge(entry)
        return entry

    def as_dict(self) -> Document:
        """Judge everything by the copies of the whole run, and turn it into plain data."""
        for entry in self.rows.values():
            self._judge(entry)
        return {
            "schema": SCHEMA,
            "label": self.label,
            "said": "" if self.device == "cuda" else DRY,
            "device": self.device,
            "environment": self.environment,
            "copy_bytes_a_second": self.rate,
            "ceilings_ns": {
                name: {str(size): [round(s * 1e9, 1) for s in found] for size, found in by.items()}
                for name, by in self.ceilings.items()
            },
            "chips": self.chips,
            "left_out": self.left_out,
            "notes": self.notes,
            "rows": self.rows,
        }

    @classmethod
    def from_dict(cls, document: Document) -> Record:
        """Take up a run where it ended; ValueError if it is a digest, which has no samples."""
        if document.get("digest"):
            raise ValueError("a digest has no samples to go on from; give the run's own file")
        ceilings = {
            name: {int(size): [ns * 1e-9 for ns in found] for size, found in by.items()}
            for name, by in document["ceilings_ns"].items()
        }
        return cls(
            document["device"],
            document["label"],
            document["environment"],
            document["rows"],
            ceilings,
            document["chips"],
            [],
            document["notes"],
        )

    def _judge(self, entry: Document) -> None:
        row = Row(**{key: entry[key] for key in Row.__dataclass_fields__})
        floor = entry["bytes"]["total"] / self.rate
        entry["floor_seconds"] = floor
        samples = {
            result["name"]: [ns * 1e-9 for ns in result["samples_ns"]]
            for result in entry["results"]
            if result["status"] == Status.OK and result["samples_ns"]
        }
        for result in entry["results"]:
            result.update(self._numbers(row, result["name"], samples, floor, result["ours"]))

    def _numbers(self, row: Row, name: str, samples: Samples, floor: float, ours: bool) -> Document:
        if name not in samples:
            return {"time": None, "verdicts": [], "met": None}
        time = median(samples[name])
        against = ratio(samples, name, ATEN)
        copy, hot = (
            self.seconds_of(way, row.output) if row.group == "forward" else None
            for way in (COPY, HOT)
        )
        judged = []
        if ours and self.device == "cuda":
            others = self._seconds_of(name, row)
            judged = verdicts(row, name, samples, floor=floor, before=others)
        known = [verdict.met for verdict in judged]
        met = None if not known or None in known else all(known)
        return {
            "time": _estimate(time),
            "share_of_copy": floor / time.value,
            "share_of_like_copy": floor * self.rate / (2 * row.output) * copy / time.value
            if copy
            else None,
            "share_of_hot_copy": hot / time.value if hot and row.ids == "zipf" else None,
            "over_floor": time.value / floor,
            "over_aten": _estimate(against) if against else None,
            "verdicts": [asdict(verdict) for verdict in judged],
            "met": False if False in known else met,
        }

    def _seconds_of(self, name: str, row: Row) -> dict[int, float]:
        """Give the medians of a contender in the rows that differ in N alone."""
        found = {}
        for entry in self.rows.values():
            alike = all(entry[key] == getattr(row, key) for key in ("group", "width", "dtype"))
            for result in entry["results"] if alike else ():
                if result["name"] == name and result["samples_ns"]:
                    found[entry["count"]] = median(result["samples_ns"]).value * 1e-9
        return found


def _estimate(found: Estimate) -> Document:
    low, high = (found.low, found.high) if found.bounded else (None, None)
    return {"value": found.value, "low": low, "high": high}


def write(path: Path, document: Document) -> None:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : Path
    document : dict
    """
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> Document:
    """Read a file that :func:`write` wrote.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it is something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or "rows" not in document:
        raise ValueError(f"{path} was not written by embconform.performance.cuda_targets")
    return document
