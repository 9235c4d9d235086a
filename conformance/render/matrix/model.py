"""What a matrix shows: a column a report, a row a clause, and what stands where they meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from embconform.conformance.report import Failure, Status
from embconform.reference.clause import Level, registry

SYMBOLS: Final = {
    Status.PASS: "✓",
    Status.FAIL: "✗",
    Status.CRASH: "!",
    Status.TIMEOUT: "T",
    Status.DEVIATION: "D",
    Status.UNEXPECTED_PASS: "U",
    Status.UNTESTED: "?",
    Status.UNSUPPORTED: "\N{EN DASH}",
}
"""A sign for each status, since colour alone tells nothing to many."""
MEANINGS: Final = {
    Status.PASS: "every case kept the clause",
    Status.FAIL: "a case broke the clause",
    Status.CRASH: "the target's process died",
    Status.TIMEOUT: "the target did not answer in time",
    Status.DEVIATION: "broken, and declared as a known failure",
    Status.UNEXPECTED_PASS: "declared as a known failure, and kept",
    Status.UNTESTED: "no case exercised the clause",
    Status.UNSUPPORTED: "outside what the backend declares, or refused",
}


@dataclass(frozen=True)
class Cell:
    """What became of a clause in a report.

    Attributes
    ----------
    status : Status
    level, profile, sentence : str
        The clause's, as the report has them; empty where it leaves them to the registry.
    counts_against : bool or None
        Whether it makes the target nonconformant; None where the report does not say.
    exercised, failed : int or None
        Cases; None where the report does not say.
    detail : str
    trouble : Failure or None
        Texts are empty where nothing is known.
    reason, link : str
        Of the declared deviation.
    """

    status: Status
    level: str = ""
    profile: str = ""
    sentence: str = ""
    counts_against: bool | None = None
    exercised: int | None = None
    failed: int | None = None
    detail: str = ""
    trouble: Failure | None = None
    reason: str = ""
    link: str = ""


@dataclass(frozen=True)
class Column:
    """One report.

    Attributes
    ----------
    target, profile, device, budget, verdict : str
    seed, cases : int
    environment : dict of str to str
    replay : str
        The command line that repeats the run.
    cells : dict of str to Cell
        By clause id.
    missing : frozenset of str
        Capabilities that the backend lacks.
    notes : tuple of str
    """

    target: str
    profile: str
    device: str
    budget: str
    verdict: str
    seed: int
    cases: int
    environment: dict[str, str]
    replay: str
    cells: dict[str, Cell]
    missing: frozenset[str]
    notes: tuple[str, ...] = ()

    @property
    def conformant(self) -> bool:
        """Whether nothing counts against the target."""
        return self.verdict == "conformant"

    def count(self, clauses: Iterable[str]) -> Counter[Status]:
        """Count the statuses of some clauses, leaving out those that the report lacks."""
        return Counter(self.cells[clause].status for clause in clauses if clause in self.cells)


@dataclass(frozen=True)
class Row:
    """One clause; attributes as in :class:`embconform.reference.clause.Clause`."""

    id: str
    level: str
    profile: str
    sentence: str
    source: str = ""
    policy: bool = False

    @property
    def group(self) -> str:
        """The part of the id before the point."""
        return self.id.partition(".")[0]


@dataclass(frozen=True)
class Matrix:
    """Reports side by side.

    Attributes
    ----------
    columns : tuple of Column
    """

    columns: tuple[Column, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for each column that no other has: the target, and what tells it from its like."""
        return names(self.columns)

    @cached_property
    def groups(self) -> dict[str, tuple[Row, ...]]:
        """The clauses of any report by group, in the order of the specification."""
        known = list(registry())
        found = dict.fromkeys(clause for column in self.columns for clause in column.cells)
        place = {clause: number for number, clause in enumerate(known)}
        groups: dict[str, list[Row]] = {}
        for clause in sorted(found, key=lambda name: place.get(name, len(known))):
            row = self._row(clause)
            groups.setdefault(row.group, []).append(row)
        return {group: tuple(rows) for group, rows in groups.items()}

    @property
    def conformant(self) -> bool:
        """Whether every report is."""
        return all(column.conformant for column in self.columns)

    def _row(self, clause: str) -> Row:
        """Take a clause as the registry has it, or as the first report does that says more."""
        known = registry().get(clause)
        if known is not None:
            return Row(
                clause, known.level, known.profile, known.sentence, known.source, known.policy
            )
        cells = [column.cells[clause] for column in self.columns if clause in column.cells]
        said = next((cell for cell in cells if cell.sentence), cells[0])
        return Row(clause, said.level or Level.MUST, said.profile or "both", said.sentence)


def names(columns: Sequence[Column]) -> tuple[str, ...]:
    """Name each column so that no two have one name.

    Parameters
    ----------
    columns : sequence of Column

    Returns
    -------
    tuple of str
        The target; where several reports are of one, also what they differ in, or a number.
    """
    made: list[str] = []
    for column in columns:
        alike = [other for other in columns if other.target == column.target]
        words = [column.target]
        for what in ("profile", "device", "budget", "seed"):
            if len({getattr(other, what) for other in alike}) > 1:
                value = getattr(column, what)
                words.append(f"seed {value}" if what == "seed" else str(value))
        name, number = " ".join(words), 1
        while name in made:
            number += 1
            name = f"{' '.join(words)} ({number})"
        made.append(name)
    return tuple(made)
