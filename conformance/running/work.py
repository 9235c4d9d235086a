"""The order of a run's work: first a little of everything, so that what is wrong shows early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Final

from embconform.conformance.cases.directed import is_directed
from embconform.conformance.cases.structure import NEAR, Structure
from embconform.conformance.probes.registry import Probe

FIRST: Final = 2
"""Cases of a stratum that are run before any stratum gets more: the simplest and a random one."""
BATCH: Final = 8
"""Strata that Hypothesis draws from in one go, since each go has a price; as few as show early what
is wrong."""
PLAINEST: Final = 20
"""Strata that come before the probes: what is wrong everywhere shows there."""
COSTLY: Final = frozenset(
    {
        "threads",
        "training",
        "gradient.recomputed",
        "huge table",
        "modules without memory",
        "compiled at once",
        "scripted at once",
        "streams.current",
        "streams.concurrent",
        "streams.capture",
        "transforms.compile",
        "transforms.compile-once",
        "transforms.export",
        "transforms.script",
        "transforms.script-max-norm",
    }
)
"""Names of probes that take tenths of a second or more; the others take hundredths."""
IMPORTING: Final = frozenset({"gradient.recomputed", "modules without memory", "compiled at once"})
"""Those whose first call makes torch import its compiler: a second, in one process or in each."""


@dataclass(frozen=True)
class Draws:
    """Cases to draw from some strata in turns.

    Attributes
    ----------
    structures : tuple of Structure
    examples : int
        From each of them.
    round : int
        How often cases were drawn from them before; every round has other cases.
    """

    structures: tuple[Structure, ...]
    examples: int
    round: int = 0


@dataclass(frozen=True)
class Together:
    """Probes that one process is to do, one after the other.

    Attributes
    ----------
    probes : tuple of Probe
    """

    probes: tuple[Probe, ...]

    @property
    def name(self) -> str:
        """Their names."""
        return " and ".join(probe.name for probe in self.probes)


Unit = Draws | Probe | Together


def units(
    structures: Sequence[Structure],
    shares: Sequence[int],
    probes: Sequence[Probe],
    batch: int = BATCH,
) -> list[Unit]:
    """List all that is to be done, in the order in which it is done.

    Parameters
    ----------
    structures : sequence of Structure
        The plainest first.
    shares : sequence of int
        Cases for each structure; those beyond its end get none.
    probes : sequence of Probe
    batch : int
        Most strata of a unit.

    Returns
    -------
    list of Draws, Probe or Together
        The first cases of the plainest strata, the cheap probes, the first cases of the strata
        that are made for a clause, the costly probes, the first cases of all other strata, and
        then the rest of each stratum.
    """
    shared = list(zip(structures, shares, strict=False))
    made = max(len(list(takewhile(is_directed, structures))), PLAINEST)
    cheap = [probe for probe in probes if probe.name not in COSTLY]
    costly = [probe for probe in probes if probe.name in COSTLY - IMPORTING]
    importing = tuple(probe for probe in probes if probe.name in IMPORTING)
    return [
        *_firsts(shared[:PLAINEST], batch),
        *cheap,
        *_firsts(shared[PLAINEST:made], batch),
        *([Together(importing)] * bool(importing)),
        *costly,
        *_firsts(shared[made:], batch),
        *_batched([(s, share - FIRST) for s, share in shared if share > FIRST], 1, batch),
    ]


def _firsts(shared: Sequence[tuple[Structure, int]], batch: int) -> list[Draws]:
    return _batched([(structure, min(share, FIRST)) for structure, share in shared], 0, batch)


def _batched(shared: Sequence[tuple[Structure, int]], number: int, batch: int) -> list[Draws]:
    """Put neighbours together that get as many cases and are of one kind.

    Kinds are what is made for a clause, what is near to a constant of the target's code, and what
    is neither: so the first and the last are the same for targets with other constants.
    """

    def alike(pair: tuple[Structure, int]) -> tuple[int, bool, bool]:
        structure, examples = pair
        return examples, is_directed(structure), NEAR in structure.size

    return [
        Draws(tuple(structure for structure, _ in some), examples, number)
        for (examples, *_), some_kind in groupby(shared, alike)
        for some in _chunks(list(some_kind), batch)
    ]


def _chunks(items: list[tuple[Structure, int]], size: int) -> list[list[tuple[Structure, int]]]:
    return [items[k : k + size] for k in range(0, len(items), size)]
