"""What a run of the gate found, and its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from embconform.performance.gate.compiling import Compilations
from embconform.performance.gate.costs import Errors, Weight
from embconform.performance.gate.course import Track
from embconform.performance.gate.decision import Call
from embconform.performance.gate.instructions import Instructions, Witness
from embconform.performance.gate.revisions import Tree


class Verdict(StrEnum):
    """What the gate says of a head."""

    FINE = "fine"
    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    VOID = "void"


EXIT: Final = {
    Verdict.FINE: 0,
    Verdict.REGRESSION: 1,
    Verdict.INCONCLUSIVE: 3,
    Verdict.VOID: 3,
}


@dataclass(frozen=True)
class Row:
    """A benchmark.

    Attributes
    ----------
    name : str
    track : Track
    base_seconds, head_seconds : float
        Of a call: the median over restarts of their medians.
    weight : Weight or None
    errors : Errors or None
        None where nothing is differentiated.
    """

    name: str
    track: Track
    base_seconds: float
    head_seconds: float
    weight: Weight | None = None
    errors: Errors | None = None

    @property
    def costlier(self) -> list[str]:
        """Say what is worse besides the time."""
        found = (self.weight, self.errors)
        return [cost.wrong for cost in found if cost and cost.wrong]

    @property
    def change(self) -> float:
        """How much slower head is: 0.1 for a time 10% longer, negative where it is faster."""
        return math.expm1(self.track.middle)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the change."""
        low, high = self.track.interval()
        return math.expm1(low), math.expm1(high)

    @property
    def threshold(self) -> float:
        """The slowdown that matters here."""
        return math.expm1(self.track.threshold)

    @property
    def verdict(self) -> str:
        """``slower``, ``faster``, ``same`` or ``inconclusive``."""
        if self.track.call is Call.SLOWER:
            return "slower"
        if self.track.call is Call.OPEN:
            return "inconclusive"
        return "faster" if self.interval[1] < 0 and self.change < -self.threshold else "same"


@dataclass(frozen=True)
class Clauses:
    """How the two sides conform.

    Attributes
    ----------
    lost : dict of str to str
        Clauses that passed on base and not on head, with what became of them.
    gained : tuple of str
        Clauses that passed on head only.
    passed : int
        Clauses that passed on both.
    cut : str
        Why the comparison is not whole; empty where it is.
    cases : int
        That each side was judged by.
    """

    lost: dict[str, str] = field(default_factory=dict)
    gained: tuple[str, ...] = ()
    passed: int = 0
    cut: str = ""
    cases: int = 0


@dataclass(frozen=True)
class GateReport:
    """A run.

    Attributes
    ----------
    target : str
    base, head : Tree
    rows : tuple of Row
    broken : dict of str to str
        Benchmarks that base does rightly and head doesn't.
    left_out : tuple of str
        Benchmarks that could not be measured, and why.
    clauses : Clauses or None
        None where conformance was not judged.
    void : bool
        Whether head against head was called slower.
    restarts : int
    together : bool
        Whether base and head shared a process.
    apart : str
        Why they didn't.
    how : str
        How they were got from their files.
    quoted : str
        What a calibration on this machine has found; empty where there was none.
    command : str
        What repeats the run.
    environment : dict of str to str
    seconds : float
    compilations : Compilations or None
        None where neither side compiles.
    witness : Witness or None
        None where no instructions were counted; it has no part in the verdict.
    """

    target: str
    base: Tree
    head: Tree
    rows: tuple[Row, ...]
    broken: dict[str, str]
    left_out: tuple[str, ...]
    clauses: Clauses | None
    void: bool
    restarts: int
    together: bool
    apart: str
    how: str
    quoted: str
    command: str
    environment: dict[str, str]
    seconds: float
    compilations: Compilations | None = None
    witness: Witness | None = None

    @property
    def costlier(self) -> list[str]:
        """Say what is worse besides conformance and time."""
        found = [f"{row.name} {said}" for row in self.rows for said in row.costlier]
        made = self.compilations
        return [*found, f"{made.benchmark} {made.wrong}"] if made and made.wrong else found

    @property
    def undecided(self) -> list[str]:
        """Say what is not known besides the times."""
        made, clauses = self.compilations, self.clauses
        found = [f"conformance: {clauses.cut}"] if clauses and clauses.cut else []
        return [*found, f"{made.benchmark}: {made.undecided}"] if made and made.undecided else found

    def beside(self, count: Instructions) -> str:
        """Say what the instructions of a benchmark and its time come to."""
        times = {row.name: row.verdict for row in self.rows}
        return count.beside("inconclusive" if self.void else times[count.name])

    @property
    def slower(self) -> list[Row]:
        """The benchmarks that are slower."""
        return [row for row in self.rows if row.verdict == "slower"]

    @property
    def open(self) -> list[Row]:
        """The benchmarks that nothing can be said of."""
        return [row for row in self.rows if row.verdict == "inconclusive"]

    @property
    def verdict(self) -> Verdict:
        """A break of conformance, memory, accuracy or graphs stands whatever the clock says."""
        if self.broken or self.costlier or (self.clauses and self.clauses.lost):
            return Verdict.REGRESSION
        if self.void:
            return Verdict.VOID
        if self.slower:
            return Verdict.REGRESSION
        if self.open or self.undecided:
            return Verdict.INCONCLUSIVE
        return Verdict.FINE

    @property
    def exit_code(self) -> int:
        """What the command exits with."""
        return EXIT[self.verdict]

    @property
    def reasons(self) -> list[str]:
        """Say in a line each why the verdict is what it is."""
        lost = self.clauses.lost if self.clauses else {}
        found = [f"{clause} passed on base: now {said}" for clause, said in lost.items()]
        found += [f"{name}: {said}" for name, said in self.broken.items()]
        found += self.costlier
        if self.void:
            found.append("head against head was called slower: the machine is not to be trusted")
            return found
        found += [
            f"{row.name} is slower by {row.change:.1%} "
            f"({row.interval[0]:+.1%} to {row.interval[1]:+.1%})"
            for row in self.slower
        ]
        if not self.slower:
            found += [f"{row.name}: {row.track.why}" for row in self.open]
        found += self.undecided
        if not found:
            found.append(self._fine())
        return found

    def _fine(self) -> str:
        if not self.rows:
            return "conformance is no worse; nothing was timed"
        worst = max(self.rows, key=lambda row: row.interval[1])
        largest = max(worst.interval[1], 0.0)
        return (
            f"no slowdown larger than {largest:.1%} (the upper end of the widest interval: "
            f"{worst.name})"
        )
