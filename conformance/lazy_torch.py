"""torch, imported when it is first used.

What a probe observes and how that is judged stand in one file, and the judges' process reads that
file without ever using torch, whose import takes two seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch  # noqa: PLC0414 - the alias exports it
else:

    class _Torch:
        """Stands in for the module; what was once asked of it is an attribute like any other."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(import_module("torch"), name)
            setattr(self, name, found)
            return found

    torch = _Torch()
