"""Which kinds of a call a backend is tried with: all of them, or few where each costs seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from embconform.backends.backend import Described

T = TypeVar("T")
FIRST: Final = slice(1)
LAST: Final = slice(-1, None)


def few(described: Described, kinds: Sequence[T], which: slice = FIRST) -> Sequence[T]:
    """Give all kinds, or some of them where each new structure of a call is compiled.

    Parameters
    ----------
    described : Backend or Description
    kinds : sequence
    which : slice
        The kinds that are tried where each is compiled.
    """
    return kinds[which] if described.compiled else kinds


def fewest(described: Described, kinds: Sequence[T], which: slice = FIRST) -> Sequence[T]:
    """Give all kinds, or some of them where each new size of a call is compiled.

    Parameters
    ----------
    described : Backend or Description
    kinds : sequence
    which : slice
        The kinds that are tried where each size is compiled.
    """
    return kinds[which] if described.sizes_compiled else kinds
