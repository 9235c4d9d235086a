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
_IMPATIENT: Final = 10.0


@dataclass(frozen=True)
class Limits:
    """What a target may use.

    Attributes
    ----------
    case : float or None
        Seconds for one step of a case, or for one trial of a probe; None for 60, and 600 where
        each new structure of a call is compiled, until the target is late for the first time: for
        10 from then on, or ten times what the slowest step took that came back.
    memory : int or None
        Bytes beyond what imports take; None for nine tenths of what is free now.
    """

    case: float | None = None
    memory: int | None = None

    @property
    def start(self) -> float:
        """Seconds that a process may take to import the target."""
        return max(_START, self.case or 0.0)

    def case_seconds(self, *, compiled: bool, slowest: float | None = None) -> float:
        """Seconds for one step.

        Parameters
        ----------
        compiled : bool
        slowest : float, optional
            What the slowest step took that came back, where another one was late.
        """
        if self.case is not None:
            return self.case
        patient = _CASE_COMPILED if compiled else _CASE
        return patient if slowest is None else min(patient, max(_IMPATIENT, 10 * slowest))

    def memory_bytes(self) -> int:
        """Bytes beyond what imports take."""
        return self.memory or int(0.9 * psutil.virtual_memory().available)
