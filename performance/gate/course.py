"""The course of a run: restarts, looks at the data, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from embconform.performance.gate.decision import (
    F64,
    Call,
    Rule,
    look,
    means,
    reach,
    recurs,
    thresholds,
)

CHANGE, SILENT, PLANTED = "change", "silent", "planted"
CONTROLS = (CHANGE, SILENT, PLANTED)


class Source(Protocol):
    """Where log ratios come from."""

    def restart(self, benchmarks: Sequence[int]) -> dict[str, F64]:
        """Measure in fresh processes.

        Parameters
        ----------
        benchmarks : sequence of int
            Which to measure.

        Returns
        -------
        dict of str to ndarray of float64, shape (benchmarks,)
            Under :data:`CHANGE`, :data:`SILENT` and :data:`PLANTED` a log ratio each.
        """
        ...


@dataclass
class Track:
    """A benchmark's way through a run.

    Attributes
    ----------
    ratios : dict of str to list of float
        Log ratios, one a restart, under the names of :data:`CONTROLS`.
    call : Call
    threshold : float
        A log ratio.
    seeing : bool
        Whether the planted slowdown has been seen.
    alarmed : bool
        Whether head against head was called slower.
    confirmed : list of float
        Log ratios of the restarts in which a flag had to recur.
    why : str
        Why it is still open at the end.
    """

    ratios: dict[str, list[float]] = field(default_factory=lambda: {k: [] for k in CONTROLS})
    call: Call = Call.OPEN
    threshold: float = math.nan
    seeing: bool = False
    alarmed: bool = False
    confirmed: list[float] = field(default_factory=list)
    why: str = ""

    @property
    def change(self) -> F64:
        """All log ratios of head against base, shape (restarts,)."""
        return np.asarray([*self.ratios[CHANGE], *self.confirmed])

    @property
    def middle(self) -> float:
        """The mean log ratio of head against base, trimmed where restarts can be spared."""
        return float(means(len(self.change))[-1].middle(self.change))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Give the two-sided interval of the mean log ratio of head against base."""
        shown = means(len(self.change))[-1]
        wide = float(replace(shown, share=1.0).reach(self.change, (1 - confidence) / 2))
        return self.middle - wide, self.middle + wide


@dataclass
class Course:
    """A run.

    Parameters
    ----------
    source : Source
    count : int
        How many benchmarks.
    rule : Rule
    over : callable
        Whether the time is over; asked between restarts.
    family : int, optional
        Over how many benchmarks false alarms are controlled; `count` by default.
    """

    source: Source
    count: int
    rule: Rule
    over: Callable[[], bool] = lambda: False
    family: int | None = None
    tracks: list[Track] = field(default_factory=list)
    restarts: int = 0
    out_of_time: bool = False

    def run(self) -> list[Track]:
        """Measure until everything is decided, or as often as the rule allows."""
        self.tracks = [Track() for _ in range(self.count)]
        for until in self.rule.looks:
            while self.restarts < until and not self.out_of_time:
                self._restart()
            if self.out_of_time:
                break
            self._look()
            if self.void or self._confirm() or not self._open():
                break
        self._close()
        return self.tracks

    @property
    def void(self) -> bool:
        """Whether head against head was called slower."""
        return any(track.alarmed for track in self.tracks)

    def _open(self) -> list[int]:
        return [k for k, t in enumerate(self.tracks) if t.call is Call.OPEN and not t.why]

    def _restart(self) -> None:
        self.out_of_time = self.restarts >= 2 and self.over()
        if self.out_of_time:
            return
        chosen = self._open()
        for name, values in self.source.restart(chosen).items():
            for k, value in zip(chosen, values, strict=True):
                self.tracks[k].ratios[name].append(float(value))
        self.restarts += 1

    def _look(self) -> None:
        chosen = self._open()
        change, silent, planted = (
            np.array([self.tracks[k].ratios[name] for k in chosen]) for name in CONTROLS
        )
        seen = look(change, silent, planted, self.rule, self.family or self.count)
        for row, k in enumerate(chosen):
            track = self.tracks[k]
            track.threshold = float(seen.threshold[row])
            track.seeing, track.alarmed = bool(seen.seeing[row]), bool(seen.alarmed[row])
            if seen.slower[row]:
                track.call = Call.SLOWER
            elif seen.fine[row]:
                track.call = Call.FINE

    def _confirm(self) -> bool:
        """Measure what is flagged again, in processes that had no part in the flag.

        Gives whether a flag recurs, which ends the run.
        """
        chosen = [k for k, track in enumerate(self.tracks) if track.call is Call.SLOWER]
        if not chosen:
            return False
        for _ in range(max(self.rule.confirm, self.restarts)):  # noise decided how many it took
            for k, value in zip(chosen, self.source.restart(chosen)[CHANGE], strict=True):
                self.tracks[k].confirmed.append(float(value))
        again = np.array([self.tracks[k].confirmed for k in chosen])
        limits = np.array([self.tracks[k].threshold for k in chosen])
        for k, recurred in zip(chosen, recurs(again, limits, self.rule), strict=True):
            if not recurred:
                self.tracks[k].call = Call.OPEN
                self.tracks[k].why = "a flag did not recur in fresh processes"
        return any(self.tracks[k].call is Call.SLOWER for k in chosen)

    def _close(self) -> None:
        """Settle what no look has: precise enough is fine, and all else is inconclusive."""
        for track in self.tracks:
            if len(track.ratios[SILENT]) > 1 and math.isnan(track.threshold):
                track.threshold = float(thresholds(np.array(track.ratios[SILENT]), self.rule))
        ended = self._ended()
        for k in self._open():
            self.tracks[k].why = ended or self._why_open(self.tracks[k])
            if not self.tracks[k].why:
                self.tracks[k].call = Call.FINE

    def _ended(self) -> str:
        """Say what ended the run before all was decided; empty where nothing did."""
        if any(track.call is Call.SLOWER for track in self.tracks):
            return "a regression ended the run before this was decided"
        if self.void:
            return "the run is void"
        return "the time was over" if self.out_of_time else ""

    def _why_open(self, track: Track) -> str:
        """Say why a benchmark can't be called fine after the last look; empty where it can."""
        ratios = np.array(track.ratios[CHANGE])
        miss = self.rule.miss / len(self.rule.looks)
        if not track.seeing:
            return "the planted slowdown was not seen"
        if float(np.median(ratios)) > track.threshold:
            return "slower than the threshold, but not beyond doubt"
        if reach(ratios, miss) >= track.threshold:
            return "the interval is wider than the threshold"
        return ""
