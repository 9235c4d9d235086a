"""Where the user's cache is."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Give the folder of embconform in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if Path(cache).is_absolute() else _home() / ".cache"
    return base / "embconform"


def _home() -> Path:
    """Give the user's folder; where there is no such user, one that can't be made."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull)
