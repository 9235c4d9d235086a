"""Where in its work a target's process is, for those who see it only from outside."""

from __future__ import annotations

from collections.abc import Callable

_sinks: list[Callable[[int], None]] = []


def mark(position: int) -> None:
    """Say that a step, or a trial of a probe, begins; it costs nothing where nobody listens.

    Parameters
    ----------
    position : int
        The number of the step.
    """
    for sink in _sinks:
        sink(position)


def listen(sink: Callable[[int], None]) -> None:
    """Call a function at each mark from now on."""
    _sinks.append(sink)
