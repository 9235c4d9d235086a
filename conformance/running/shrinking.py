"""From a failing stratum to the plainest one that still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from embconform.conformance.cases.soundness import is_sound
from embconform.conformance.cases.structure import PLAIN, Structure

_KEPT = frozenset({"fault"})


def plainer(structure: Structure, still_fails: Callable[[Structure], bool]) -> Structure:
    """Set factors back to their plainest value, one after the other, while the failure stays.

    Parameters
    ----------
    structure : Structure
        One that fails.
    still_fails : callable
        Whether another one fails too.

    Returns
    -------
    Structure
        One that fails, with as few factors away from their plainest value as one pass finds.
    """
    for name in _order():
        candidate = replace(structure, **{name: getattr(PLAIN, name)})
        if candidate != structure and is_sound(candidate) and still_fails(candidate):
            structure = candidate
    return structure


def _order() -> Iterator[str]:
    """Yield the factors, the size last: where the rest is plain, small cases are tried best."""
    names = [field.name for field in fields(Structure) if field.name not in _KEPT]
    yield from (name for name in names if name not in ("program", "size"))
    yield from ("program", "size")
