"""What to run, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

from embconform.backends.deviations import Deviation
from embconform.conformance.cases.directed import is_directed
from embconform.conformance.cases.structure import Structure
from embconform.reference.clause import Profile


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is drawn.

    Attributes
    ----------
    arrays : int
        How often as many strata as hold all pairs of the factors of a call.
    examples : int
        Cases for each of these strata.
    directed : int
        Cases for each stratum that is made for a clause.
    seconds : float
        How long a run may take before it is cut, by default; four times that where each new
        structure of a call is compiled.
    constants : int
        Most whole numbers of a target's own code that sizes are drawn near to.
    near : int
        Strata of such sizes by chance, beside the plainest of each.
    frugal : bool
        Whether a target that compiles gets fewer strata, and one that compiles each new size the
        first cases of the fewest that exercise every clause, of one shape each.
    """

    arrays: int
    examples: int
    directed: int
    seconds: float
    constants: int = 0
    near: int = 0
    frugal: bool = False

    def cases(self, structure: Structure) -> int:
        """Give the number of cases for a stratum; those of tens of thousands of indices get few."""
        wished = self.directed if is_directed(structure) else self.examples
        return max(wished // 5, 2) if structure.size == "vast" else wished


BUDGETS = {
    "quick": Budget(
        arrays=2, examples=1, directed=2, seconds=600, constants=8, near=120, frugal=True
    ),
    "default": Budget(arrays=33, examples=1, directed=14, seconds=3600, constants=24, near=1_200),
    "thorough": Budget(
        arrays=400, examples=2, directed=60, seconds=8 * 3600, constants=100, near=12_000
    ),
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
    seconds : float or None
        How long the run may take before it is cut; None for the budget's time.
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
    seconds: float | None = None

    def seconds_allowed(self, *, compiled: bool) -> float:
        """Give the time after which the run is cut, in seconds."""
        return self.seconds or BUDGETS[self.budget].seconds * (4 if compiled else 1)
