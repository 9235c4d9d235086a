"""Where in its work a target's process is, for those who see it only from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_sinks: list[Callable[[int], None]] = []
_before = 0
STEPS: Final = 2**32
"""More than a case has steps."""


def begin(number: int) -> None:
    """Say that a case begins; its steps are marked from ``number * STEPS`` on.

    Parameters
    ----------
    number : int
        Of the case among those that were asked for at once.
    """
    global _before  # noqa: PLW0603 -- one process runs one case at a time
    _before = number * STEPS
    mark(0)


def mark(position: int) -> None:
    """Say that a step, or a trial of a probe, begins; it costs nothing where nobody listens.

    Parameters
    ----------
    position : int
        The number of the step.
    """
    for sink in _sinks:
        sink(_before + position)


def listen(sink: Callable[[int], None]) -> None:
    """Call a function at each mark from now on."""
    _sinks.append(sink)
