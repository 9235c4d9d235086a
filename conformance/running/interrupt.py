"""Ctrl-C as a wish to stop: the run ends at the next case, and what it has found is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptible:
    """While it is entered, the first SIGINT or SIGTERM is noted, and the second is one as ever.

    Attributes
    ----------
    requested : bool
        Whether somebody wants the run to stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self._urgent = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self.requested

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """Raise KeyboardInterrupt at once, rather than wait to be asked."""
        self._urgent = True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._urgent = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.requested = True
        self._restore()
        if self._urgent:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def finished(work: Callable[[], object], stop: Callable[[], bool]) -> bool:
    """Do what takes seconds and never asks whether to stop; tell whether it was finished.

    Parameters
    ----------
    work : callable
    stop : callable
        Where it is an :class:`Interruptible`, a signal ends the work at once.

    Returns
    -------
    bool
    """
    try:
        if isinstance(stop, Interruptible):
            with stop.urgent():
                work()
        else:
            work()
    except KeyboardInterrupt:
        if not stop():
            raise
        return False
    return True
