"""What judges and a target's process say to each other, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from embconform.backends.backend import Description
from embconform.conformance.cases.case import Case
from embconform.conformance.outcome import Outcome
from embconform.reference.clause import Profile


@dataclass(frozen=True)
class Hello:
    """What a new process is to become.

    Attributes
    ----------
    target : str
        As the user named it.
    device : str or None
        None for the target's own.
    search_path : tuple of str
        ``sys.path`` of the process that asks.
    folder : str
        Its working directory.
    environment : dict of str to str
        Its environment variables.
    memory : int or None
        Bytes that the target may allocate beyond what imports take; None for no limit.
    """

    target: str
    device: str | None
    search_path: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    memory: int | None


@dataclass(frozen=True)
class Ready:
    """The target was found; what is known of it, and where it runs."""

    description: Description
    environment: dict[str, str]
    device: str


@dataclass(frozen=True)
class Unusable:
    """The target can't be found, imported or used; one line for the user."""

    message: str


@dataclass(frozen=True)
class ObserveCases:
    """Run cases, one after the other; the answer is Outcomes.

    Attributes
    ----------
    cases : tuple of (Case, bool)
        Each with whether kernels may use more threads than one.
    """

    cases: tuple[tuple[Case, bool], ...]


@dataclass(frozen=True)
class Outcomes:
    """What came of the first cases: of all, or up to one that took the device along."""

    outcomes: tuple[Outcome, ...]

    @property
    def ruined(self) -> bool:
        """Whether the device was lost."""
        return self.outcomes[-1].ruined


@dataclass(frozen=True)
class ObserveProbe:
    """Run a probe's observation; the answer is what it saw."""

    name: str
    profile: Profile
    seed: int
    skip: int = 0


@dataclass(frozen=True)
class Seen:
    """What a probe saw; `ruined` where the device was lost meanwhile."""

    observation: object
    ruined: bool = False


@dataclass(frozen=True)
class Finish:
    """Say what was tampered with; the answer is an Ending."""


@dataclass(frozen=True)
class Ending:
    """How a process ended; it comes unasked after an answer in which the device was lost.

    Attributes
    ----------
    tampered : tuple of str
        Names of functions of torch, NumPy, time and the suite that are no longer what they were.
    """

    tampered: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Fault:
    """The suite itself failed in the target's process; a traceback."""

    text: str
