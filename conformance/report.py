"""The result of a run, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from embconform.backends.deviations import Deviation
from embconform.reference.clause import Clause, Level, Profile

if TYPE_CHECKING:
    from embconform.conformance.results import Found


class Status(StrEnum):
    """What became of a clause."""

    PASS = "pass"
    FAIL = "fail"
    DEVIATION = "deviation"
    UNEXPECTED_PASS = "unexpected-pass"
    UNSUPPORTED = "unsupported"
    UNTESTED = "untested"
    CRASH = "crash"
    TIMEOUT = "timeout"


BROKEN = frozenset({Status.FAIL, Status.CRASH, Status.TIMEOUT})


@dataclass(frozen=True)
class Failure:
    """The smallest failing case of a clause.

    Attributes
    ----------
    message : str
        One line: what was seen and what should have been.
    got, exact, bound : str
        The values in words; empty where the failure is not numeric.
    ulp : float or None
        The error in units in the last place of the output dtype.
    call : str
        The failing call as two to ten lines of torch code that print what went wrong.
    script : str
        A standalone script: torch and the target only, prints expected and got, exits 1.
    indices, rows : int
        How many indices and table rows the case has.
    """

    message: str
    got: str = ""
    exact: str = ""
    bound: str = ""
    ulp: float | None = None
    call: str = ""
    script: str = ""
    indices: int = 0
    rows: int = 0


@dataclass(frozen=True)
class ClauseResult:
    """One clause's part of a report.

    Attributes
    ----------
    clause : Clause
    status : Status
    exercised : int
        Number of cases in which the clause applied.
    failed : int
        Number of those that broke it.
    seconds : float
        Time spent in its judge.
    failure : Failure or None
    deviation : Deviation or None
        The declared deviation that covers it.
    detail : str
        Why it is unsupported or untested; otherwise one line on the failure.
    left_out : bool
        Untested because the budget is too small for it; never counts against a target.
    """

    clause: Clause
    status: Status
    exercised: int = 0
    failed: int = 0
    seconds: float = 0.0
    failure: Failure | None = None
    deviation: Deviation | None = None
    detail: str = ""
    left_out: bool = False


@dataclass(frozen=True)
class Report:
    """One target's verdict and how it came about.

    Attributes
    ----------
    target : str
        As the user named it.
    profile : Profile
    device : str
    seed : int
    budget : str
    clauses : tuple of ClauseResult
        In the order of the specification.
    cases : int
        Number of cases run.
    seconds : float
        Wall time of the run, imports excluded.
    environment : dict of str to str
        Versions and machine.
    notes : tuple of str
        Things a person should know: floods of output, unreproducible failures.
    strict : bool
        Whether SHOULD failures and unexpected passes count.
    replay : str
        The command line that repeats the run.
    interrupted : bool
        Whether somebody stopped the run before its end.
    tampered : tuple of str
        Functions of torch, NumPy, time or the suite that the target has replaced.
    part : Found or None
        What merging or resuming needs, where this is a part of a run; None for a whole run.
    able : frozenset of str or None
        What the target declares it can do, as clauses name their needs; None where nobody knows.
    """

    target: str
    profile: Profile
    device: str
    seed: int
    budget: str
    clauses: tuple[ClauseResult, ...]
    cases: int
    seconds: float
    environment: dict[str, str]
    notes: tuple[str, ...] = ()
    strict: bool = False
    replay: str = ""
    interrupted: bool = False
    tampered: tuple[str, ...] = ()
    part: Found | None = None
    able: frozenset[str] | None = None

    def with_status(self, *statuses: Status) -> list[ClauseResult]:
        """List the results that have one of the statuses."""
        return [result for result in self.clauses if result.status in statuses]

    def counts_against(self, result: ClauseResult) -> bool:
        """Tell whether a result makes the target nonconformant.

        A broken MUST or MAY clause does, and so does an untested MUST clause; under ``strict`` a
        broken SHOULD clause and an unexpected pass do as well.
        """
        binding = result.clause.level is not Level.SHOULD or self.strict
        if result.status in BROKEN:
            return binding
        if result.status is Status.UNTESTED:
            return not result.left_out and (result.clause.level is Level.MUST or self.strict)
        return result.status is Status.UNEXPECTED_PASS and self.strict

    @property
    def conformant(self) -> bool:
        """Whether nothing counts against the target."""
        broken = any(self.counts_against(result) for result in self.clauses)
        return not (broken or self.interrupted or self.tampered)

    @property
    def verdict(self) -> str:
        """``conformant`` or ``nonconformant``."""
        return "conformant" if self.conformant else "nonconformant"
