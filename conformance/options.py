"""What to run, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

from embconform.backends.deviations import Deviation
from embconform.conformance.strata import DIRECTED, Structure
from embconform.reference.clause import Profile


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is drawn.

    Attributes
    ----------
    arrays : int
        Arrays of all pairs of the factors of a call.
    examples : int
        Cases for each stratum of these arrays.
    directed : int
        Cases for each stratum that is made for a clause.
    """

    arrays: int
    examples: int
    directed: int

    def cases(self, structure: Structure) -> int:
        """Give the number of cases for a stratum; those of tens of thousands of indices get few."""
        wished = self.directed if structure in DIRECTED else self.examples
        return max(wished // 5, 2) if structure.size == "vast" else wished


BUDGETS = {
    "quick": Budget(arrays=1, examples=2, directed=3),
    "default": Budget(arrays=17, examples=2, directed=14),
    "thorough": Budget(arrays=40, examples=20, directed=60),
}


@dataclass(frozen=True)
class RunOptions:
    """What to run.

    Attributes
    ----------
    profile : Profile
    budget : str
        A key of :data:`BUDGETS`.
    max_examples : int or None
        Most cases drawn, at least one a stratum while they last; None for the budget's number.
    seed : int
    device : str
        ``cpu`` or ``cuda``.
    select : str
        Shell patterns of clause ids, joined by commas.
    deviations : tuple of Deviation
        Known failures, those of the backend's own file included.
    strict : bool
        SHOULD failures and unexpected passes count against the verdict.
    fail_fast : bool
        Stop after the first stratum that breaks a clause that counts.
    """

    profile: Profile
    budget: str = "default"
    max_examples: int | None = None
    seed: int = 0
    device: str = "cpu"
    select: str = "*"
    deviations: tuple[Deviation, ...] = ()
    strict: bool = False
    fail_fast: bool = False
