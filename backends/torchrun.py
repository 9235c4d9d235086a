"""Whether torchrun started this process; imports nothing, so that the command line can ask."""

from __future__ import annotations

import os


def under_torchrun() -> bool:
    """Tell whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ
