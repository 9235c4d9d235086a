"""The order of a run's work: first a little of everything, so that what is wrong shows early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from embconform.conformance.probes import Probe
from embconform.conformance.strata import DIRECTED, Structure

FIRST: Final = 2
"""Cases of a stratum that are run before any stratum gets more: the simplest and a random one."""
PLAINEST: Final = 20
"""Strata that come before the probes: what is wrong everywhere shows there."""
COSTLY: Final = frozenset(
    {
        "threads",
        "training",
        "huge table",
        "transforms.compile",
        "transforms.compile-once",
        "transforms.export",
        "transforms.script",
        "transforms.script-max-norm",
    }
)
"""Names of probes that take tenths of a second or more; the others take hundredths."""


@dataclass(frozen=True)
class Draws:
    """Cases to draw from a stratum at a time.

    Attributes
    ----------
    structure : Structure
    examples : int
    round : int
        How often cases were drawn from the stratum before; every round has other cases.
    """

    structure: Structure
    examples: int
    round: int = 0


Unit = Draws | Probe


def units(
    structures: Sequence[Structure], shares: Sequence[int], probes: Sequence[Probe]
) -> list[Unit]:
    """List all that is to be done, in the order in which it is done.

    Parameters
    ----------
    structures : sequence of Structure
        The plainest first.
    shares : sequence of int
        Cases for each structure; those beyond its end get none.
    probes : sequence of Probe

    Returns
    -------
    list of Draws or Probe
        The first cases of the plainest strata, the cheap probes, the first cases of the strata
        that are made for a clause, the costly probes, the first cases of all other strata, and
        then the rest of each stratum.
    """
    shared = list(zip(structures, shares, strict=False))
    firsts = [Draws(structure, min(share, FIRST)) for structure, share in shared]
    rests = [Draws(structure, share - FIRST, 1) for structure, share in shared if share > FIRST]
    cheap = [probe for probe in probes if probe.name not in COSTLY]
    costly = [probe for probe in probes if probe.name in COSTLY]
    made = len(DIRECTED)
    return [
        *firsts[:PLAINEST],
        *cheap,
        *firsts[PLAINEST:made],
        *costly,
        *firsts[made:],
        *rests,
    ]
