"""See whether foreign code has replaced functions that the observation relies on."""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch

_WATCHED: Final[tuple[tuple[str, Any], ...]] = (
    ("torch", torch),
    ("torch.Tensor", torch.Tensor),
    ("torch._C.TensorBase", torch._C.TensorBase),
    ("torch.autograd", torch.autograd),
    ("torch.nn", torch.nn),
    ("torch.nn.functional", torch.nn.functional),
    ("torch.cuda", torch.cuda),
    ("torch.random", torch.random),
    ("numpy", np),
    ("numpy.ndarray", np.ndarray),
    ("time", time),
    ("builtins", builtins),
)
_HOMES: Final = tuple(str(Path(str(package.__file__)).parent) for package in (torch, np))


def _own_modules() -> Iterator[tuple[str, ModuleType]]:
    for name, module in list(sys.modules.items()):
        if name.startswith("embconform.") and isinstance(module, ModuleType):
            yield name, module


def _members() -> Iterator[tuple[str, Any]]:
    """Yield what is called or could be replaced, by its full name."""
    for home, owner in (*_WATCHED, *_own_modules()):
        for name, value in list(vars(owner).items()):
            if callable(value) or isinstance(value, property | staticmethod | classmethod):
                yield f"{home}.{name}", value


def _is_their_own(value: Any) -> bool:
    """Tell whether a function's code is torch's or NumPy's: both wrap their own at late imports."""
    code = getattr(value, "__code__", None)
    return code is not None and code.co_filename.startswith(_HOMES)


class Seal:
    """Remembers what the functions were before the target was imported."""

    def __init__(self) -> None:
        self._known = dict(_members())
        self._modules = {
            name: id(module)
            for name, module in sys.modules.items()
            if name.split(".")[0] in ("torch", "numpy", "time", "embconform")
        }

    def broken(self) -> tuple[str, ...]:
        """Name what has been replaced or removed since; what was added does no harm."""
        now = dict(_members())
        changed = {
            name
            for name, value in self._known.items()
            if now.get(name) is not value and not _is_their_own(now.get(name))
        }
        changed |= {
            f"sys.modules[{name!r}]"
            for name, number in self._modules.items()
            if id(sys.modules.get(name)) != number
        }
        return tuple(sorted(changed))
