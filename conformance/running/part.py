"""What a part of a run has counted; the parts of a run, merged in any order, are the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from embconform.conformance.running.tally import Tally
from embconform.reference.clause import Clause

MOST_SHRUNK = 12
"""Failing clauses that are shrunk; those after them show the smallest case that was drawn."""


@dataclass
class Part:
    """What was counted in some of a run's units of work.

    Attributes
    ----------
    tallies : dict of str to Tally
        By clause, for the clauses that were exercised.
    done : set of int
        Numbers of the units.
    cases : int
    crashes, timeouts : int
        How often the target's process was lost.
    replayed : int
        Known failures that were replayed.
    fixed : int
        Those of them that hold now.
    printed : int
        Bytes that the target printed.
    head : str
        How they begin.
    """

    tallies: dict[str, Tally] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    cases: int = 0
    crashes: int = 0
    timeouts: int = 0
    replayed: int = 0
    fixed: int = 0
    printed: int = 0
    head: str = ""

    def tally(self, clause: str) -> Tally:
        """Give what was seen of a clause; nothing yet where it is new."""
        return self.tallies.setdefault(clause, Tally())

    def merge(self, other: Part) -> None:
        """Add another part, which has none of this one's units."""
        for clause, tally in other.tallies.items():
            self.tally(clause).merge(tally)
        self.done |= other.done
        self.cases += other.cases
        self.crashes += other.crashes
        self.timeouts += other.timeouts
        self.replayed += other.replayed
        self.fixed += other.fixed
        self.printed += other.printed
        self.head = self.head or other.head

    def broken(self, clauses: Iterable[Clause]) -> list[str]:
        """List the clauses that a case broke, in the order of the specification."""
        return [c.id for c in clauses if c.id in self.tallies and self.tallies[c.id].failed]

    def to_shrink(
        self, clauses: Iterable[Clause], declared: Iterable[str], most: int = MOST_SHRUNK
    ) -> list[str]:
        """List the broken clauses whose cases are shrunk: the first that are not declared.

        A part of a run lists at least those of its own that the whole run lists.
        """
        known = set(declared)
        return [clause for clause in self.broken(clauses) if clause not in known][:most]

    def counting(
        self, clauses: Iterable[Clause], declared: Iterable[str], *, strict: bool
    ) -> list[str]:
        """List the broken clauses that count against the verdict."""
        known, counts = set(declared), [c for c in clauses if strict or c.level != "SHOULD"]
        return [clause for clause in self.broken(counts) if clause not in known]
