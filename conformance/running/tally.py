"""What a run has seen of each clause so far."""

from __future__ import annotations

from dataclasses import dataclass

from embconform.conformance.cases.case import Case
from embconform.conformance.cases.structure import Structure
from embconform.conformance.finding import Finding
from embconform.conformance.judging import Ruling
from embconform.conformance.report import Failure, Status


@dataclass(frozen=True)
class Broken:
    """A case that breaks a clause; None for a probe's finding, which has no case.

    Attributes
    ----------
    finding : Finding
    case : Case or None
    structure : Structure or None
        The stratum of the case.
    unit : int
        Number of the unit of work that it was met in.
    """

    finding: Finding
    case: Case | None
    structure: Structure | None
    unit: int = 0

    @property
    def cost(self) -> int | None:
        """How hard the case is to read."""
        return None if self.case is None else self.case.cost

    @property
    def lost(self) -> str:
        """``crash`` or ``timeout`` where the target's process did not survive; else empty."""
        return self.finding.lost


@dataclass(frozen=True)
class Told:
    """A case that breaks a clause, as a report tells it; attributes as those of :class:`Broken`."""

    failure: Failure
    cost: int | None
    lost: str
    structure: Structure | None
    unit: int = 0


Smallest = Broken | Told


@dataclass(frozen=True)
class Shrunk:
    """What became of shrinking the smallest case that was drawn.

    Attributes
    ----------
    smallest : Broken or Told or None
        A case that is smaller still; None where none was found.
    note : str
        What a person should know of it; empty for nothing.
    """

    smallest: Smallest | None = None
    note: str = ""


@dataclass
class Tally:
    """What was seen of one clause.

    Attributes
    ----------
    exercised, failed, crashed, late, refused : int
        Numbers of cases: in which the clause applied, that broke it, of those the ones that the
        target's process did not survive or did not end in time, and that the target refused.
    seconds : float
        Time spent in its judge.
    smallest : Broken or Told or None
        The broken case that is easiest to read, the earliest of several.
    shrunk : Shrunk or None
        What became of shrinking it; None before that.
    refusal : tuple of int and str, or None
        The first refusal: the unit of work, and the target's words.
    """

    exercised: int = 0
    failed: int = 0
    crashed: int = 0
    late: int = 0
    refused: int = 0
    seconds: float = 0.0
    smallest: Smallest | None = None
    shrunk: Shrunk | None = None
    refusal: tuple[int, str] | None = None

    def add(
        self, rulings: list[Ruling], case: Case | None, structure: Structure | None, unit: int = 0
    ) -> None:
        """Count one case's rulings on the clause."""
        self.exercised += 1
        self.seconds += sum(ruling.seconds for ruling in rulings)
        findings = [ruling.finding for ruling in rulings if ruling.finding is not None]
        wrong = [finding for finding in findings if not finding.refused]
        if wrong:
            self.failed += 1
            self.crashed += wrong[0].lost == "crash"
            self.late += wrong[0].lost == "timeout"
            self.keep(Broken(wrong[0], case, structure, unit))
        elif findings:
            self.refused += 1
            self.refusal = self.refusal or (unit, findings[0].got)

    def keep(self, broken: Smallest, shrunk: Shrunk | None = None) -> None:
        """Keep the case that is easiest to read, with what became of shrinking it."""
        if self.smallest is None or _order(broken) < _order(self.smallest):
            self.smallest, self.shrunk = broken, shrunk

    def merge(self, other: Tally) -> None:
        """Add what another part of the run has seen of the clause, whichever part came first."""
        self.exercised += other.exercised
        self.failed += other.failed
        self.crashed += other.crashed
        self.late += other.late
        self.refused += other.refused
        self.seconds += other.seconds
        if other.smallest is not None:
            self.keep(other.smallest, other.shrunk)
        if other.refusal and (self.refusal is None or other.refusal[0] < self.refusal[0]):
            self.refusal = other.refusal

    def shown(self, *, shrunk: bool) -> Smallest:
        """Give the case that the report shows of a clause that failed.

        Parameters
        ----------
        shrunk : bool
            Whether the clause is one of those that are shrunk.
        """
        assert self.smallest is not None
        smaller = self.shrunk.smallest if shrunk and self.shrunk else None
        if smaller is not None and _order(smaller)[:2] < _order(self.smallest)[:2]:
            return smaller
        return self.smallest

    @property
    def status(self) -> Status:
        """How a clause that failed did: by a wrong answer, a crash, or no answer in time."""
        if self.failed > self.crashed + self.late:
            return Status.FAIL
        return Status.CRASH if self.crashed else Status.TIMEOUT


def _order(broken: Smallest) -> tuple[bool, int, int]:
    """Order by how easy a case is to read, those without a case last, then by the unit of work."""
    return broken.cost is None, broken.cost or 0, broken.unit
