"""The process that started this one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def end_with_parent() -> None:
    """Ask Linux to kill this process when its parent is gone, however that happens."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        os._exit(0)
