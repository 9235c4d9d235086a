"""How long a target may take, and how much memory it may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import psutil

GIB: Final = 2**30
MOST_TIMEOUTS: Final = 8
MOST_CRASHES: Final = 40
_CASE: Final = 60.0
_CASE_COMPILED: Final = 600.0
_START: Final = 120.0


@dataclass(frozen=True)
class Limits:
    """What a target may use.

    Attributes
    ----------
    case : float or None
        Seconds for one step of a case, or for one trial of a probe; None for 60, and 600 where
        each new structure of a call is compiled.
    memory : int or None
        Bytes beyond what imports take; None for nine tenths of what is free now.
    """

    case: float | None = None
    memory: int | None = None

    @property
    def start(self) -> float:
        """Seconds that a process may take to import the target."""
        return max(_START, self.case or 0.0)

    def case_seconds(self, *, compiled: bool) -> float:
        """Seconds for one step."""
        return self.case or (_CASE_COMPILED if compiled else _CASE)

    def memory_bytes(self) -> int:
        """Bytes beyond what imports take."""
        return self.memory or int(0.9 * psutil.virtual_memory().available)
