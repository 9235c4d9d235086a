"""What a run has seen of each clause so far."""

from __future__ import annotations

from dataclasses import dataclass

from embconform.conformance.case import Case
from embconform.conformance.finding import Finding
from embconform.conformance.judging import Ruling
from embconform.conformance.report import Status
from embconform.conformance.strata import Structure


@dataclass(frozen=True)
class Broken:
    """A case that breaks a clause; None for a probe's finding, which has no case."""

    finding: Finding
    case: Case | None
    structure: Structure | None


@dataclass
class Tally:
    """What was seen of one clause."""

    exercised: int = 0
    failed: int = 0
    crashed: int = 0
    late: int = 0
    refused: int = 0
    seconds: float = 0.0
    smallest: Broken | None = None
    refusal: str = ""

    def add(self, rulings: list[Ruling], case: Case | None, structure: Structure | None) -> None:
        """Count one case's rulings on the clause."""
        self.exercised += 1
        self.seconds += sum(ruling.seconds for ruling in rulings)
        findings = [ruling.finding for ruling in rulings if ruling.finding is not None]
        wrong = [finding for finding in findings if not finding.refused]
        if wrong:
            self.failed += 1
            self.crashed += wrong[0].lost == "crash"
            self.late += wrong[0].lost == "timeout"
            self.keep(Broken(wrong[0], case, structure))
        elif findings:
            self.refused += 1
            self.refusal = findings[0].got

    @property
    def status(self) -> Status:
        """How a clause that failed did: by a wrong answer, a crash, or no answer in time."""
        if self.failed > self.crashed + self.late:
            return Status.FAIL
        return Status.CRASH if self.crashed else Status.TIMEOUT

    def keep(self, broken: Broken) -> None:
        """Keep the case that is easiest to read."""
        best = self.smallest
        if (
            best is None
            or best.case is None
            or (broken.case is not None and broken.case.cost < best.case.cost)
        ):
            self.smallest = broken
