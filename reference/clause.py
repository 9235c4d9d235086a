"""What a clause of the specification is, and the registry of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache
from typing import Final


class Level(StrEnum):
    """How binding a clause is, after RFC 2119.

    A broken MAY clause is a wrong answer to something that could have been refused, so it counts
    against the verdict as MUST does; an honest refusal is ``unsupported``. A broken SHOULD clause
    is reported and leaves the verdict alone, unless the run is strict.
    """

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"


class Profile(StrEnum):
    """Which embedding is meant: torch.nn.Embedding or the founding document's layer."""

    TORCH = "torch"
    TEXTBOOK = "textbook"


TORCH: Final = frozenset({Profile.TORCH})
TEXTBOOK: Final = frozenset({Profile.TEXTBOOK})
BOTH: Final = frozenset(Profile)
DEVICES: Final = frozenset({"cpu", "cuda"})


@dataclass(frozen=True, slots=True)
class Clause:
    """One sentence of the specification.

    Attributes
    ----------
    id : str
        ``group.name``, stable between versions.
    level : Level
        MUST, SHOULD or MAY.
    profiles : frozenset of Profile
        The profiles that the clause belongs to.
    sentence : str
        The normative text.
    source : str
        Where the behaviour is documented or why it is forced.
    example : str
        Two lines of code that show it.
    needs : frozenset of str
        Names of the capabilities without which the clause is ``unsupported``.
    policy : bool
        True where PyTorch leaves the behaviour undocumented and the suite had to choose.
    devices : frozenset of str
        The device types that it speaks of; a run on another one knows nothing of it.
    """

    id: str
    level: Level
    profiles: frozenset[Profile]
    sentence: str
    source: str
    example: str
    needs: frozenset[str] = field(default_factory=frozenset)
    policy: bool = False
    devices: frozenset[str] = DEVICES

    @property
    def group(self) -> str:
        """The part of the id before the point."""
        return self.id.partition(".")[0]

    @property
    def profile(self) -> str:
        """The profile as one word: ``torch``, ``textbook`` or ``both``."""
        return "both" if len(self.profiles) > 1 else next(iter(self.profiles)).value


@cache
def registry() -> dict[str, Clause]:
    """Every clause by id, in the order of the specification.

    Returns
    -------
    dict of str to Clause
    """
    from embconform.reference.clauses import CLAUSES

    found: dict[str, Clause] = {}
    for clause in CLAUSES:
        if clause.id in found:
            raise ValueError(f"two clauses are called {clause.id!r}")
        found[clause.id] = clause
    return found


def spoken_of(device: str) -> dict[str, Clause]:
    """Every clause that speaks of a device type, by id.

    Parameters
    ----------
    device : str

    Returns
    -------
    dict of str to Clause
    """
    return {name: clause for name, clause in registry().items() if device in clause.devices}


def select(profile: Profile, pattern: str = "*", device: str | None = None) -> list[Clause]:
    """List the clauses of a profile whose id matches a shell pattern.

    Parameters
    ----------
    profile : Profile
    pattern : str
        As in :mod:`fnmatch`; several patterns may be joined by commas.
    device : str, optional
        Only those that speak of it.

    Returns
    -------
    list of Clause
        In the order of the specification; empty where nothing matches.
    """
    patterns = [part.strip() for part in pattern.split(",")]
    return [
        clause
        for clause in (spoken_of(device) if device else registry()).values()
        if profile in clause.profiles and any(fnmatchcase(clause.id, part) for part in patterns)
    ]
