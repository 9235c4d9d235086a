"""End a process group, whatever its members start meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import psutil

_TRACKER: Final = "multiprocessing.resource_tracker"


def end_group(number: int, seconds: float) -> None:
    """End the processes of a group.

    Python's tracker of named semaphores is let end by itself: it unlinks them then, which nobody
    else can.

    Parameters
    ----------
    number : int
    seconds : float
        After these it is killed as well.
    """
    until = time.monotonic() + seconds
    with suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < until:
            os.killpg(number, 0)
            for member in _members(number):
                with suppress(psutil.Error):
                    if _TRACKER not in " ".join(member.cmdline()):
                        member.kill()
            time.sleep(0.01)
        os.killpg(number, signal.SIGKILL)


def _members(number: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getpgid(process.pid) == number:
                yield process
