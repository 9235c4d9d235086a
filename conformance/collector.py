"""How often Python looks for garbage in cycles, in the processes that are the suite's own."""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLD: Final = (5_000, 20, 20)


def look_less_often() -> None:
    """Collect an eighth as often as CPython does by default: a case makes next to no cycles.

    Most of what is alive is torch's own, and looking through it took a tenth of a run.
    """
    gc.set_threshold(*_THRESHOLD)
