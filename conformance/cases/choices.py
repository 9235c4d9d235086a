"""Where the choices come from that Hypothesis draws a case with: a generator of the case's own.

Hypothesis's own provider follows each case of its making by up to five that copy parts of it, and
mixes in constants of whichever modules are loaded. Strata of a few cases want each case new, and
the same for a seed wherever it runs.
"""

from __future__ import annotations

import threading
from random import Random
from typing import TYPE_CHECKING, Any, Final

from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, PrimitiveProvider

if TYPE_CHECKING:
    from hypothesis.internal.conjecture.data import ConjectureData

BACKEND: Final = "embconform"
"""The name to give as ``settings(backend=...)``."""
_thread = threading.local()


class Choices(PrimitiveProvider):
    """Makes each choice uniformly; those that no case is drawn with are not to be had."""

    def __init__(self, conjecturedata: ConjectureData | None, /) -> None:
        super().__init__(conjecturedata)
        self._random = Random(0)
        _thread.random = self._random

    def draw_boolean(self, p: float = 0.5) -> bool:
        """Choose True with probability `p`."""
        return self._random.random() < p

    def draw_integer(
        self,
        min_value: int | None = None,
        max_value: int | None = None,
        *,
        weights: dict[int, float] | None = None,
        shrink_towards: int = 0,
    ) -> int:
        """Choose an integer of a range; `weights` has the probabilities of some of them."""
        del shrink_towards
        if min_value is None or max_value is None:
            raise NotImplementedError("an integer without two bounds")
        left = self._random.random() if weights else 1.0
        for value, weight in (weights or {}).items():
            left -= weight
            if left < 0:
                return value
        return min_value + int(self._random.random() * (max_value - min_value + 1))

    def draw_float(self, **constraints: Any) -> float:
        """Refuse."""
        raise NotImplementedError("a float")

    def draw_string(self, *args: Any, **constraints: Any) -> str:
        """Refuse."""
        raise NotImplementedError("a string")

    def draw_bytes(self, *args: Any, **constraints: Any) -> bytes:
        """Refuse."""
        raise NotImplementedError("bytes")


AVAILABLE_PROVIDERS[BACKEND] = f"{__name__}.{Choices.__name__}"


def restart(seed: int) -> None:
    """Let the choices that follow depend on a seed alone, not on those before.

    Without effect where Hypothesis replays or shrinks choices that were made.

    Parameters
    ----------
    seed : int
    """
    random = getattr(_thread, "random", None)
    if random is not None:
        random.seed(seed)
