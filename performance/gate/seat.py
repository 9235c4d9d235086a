"""One or several sides of a comparison in one process: whose modules are in force when."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

import torch

from embconform.backends.backend import Backend
from embconform.backends.targets import resolve
from embconform.performance.gate.messages import Loaded, Side

_SOURCE: Final = (".py", ".pyc")


class Seat:
    """A side as it is loaded.

    Two sides have modules of the same names. Those of a side are in ``sys.modules`` while it runs,
    and put away while another does, so that an import inside a function finds its own side's.

    Parameters
    ----------
    side : Side
    search_path : tuple of str
        What stands behind the side's roots on ``sys.path``.

    Raises
    ------
    TargetError
        If the target can't be imported.
    """

    def __init__(self, side: Side, search_path: tuple[str, ...]) -> None:
        self.side = side
        self._path = [*side.roots, *(entry for entry in search_path if entry not in side.roots)]
        self._modules: dict[str, ModuleType] = {}
        operators = _operators()
        with self.active():
            self.backend: Backend = resolve(side.target)
            if self.backend.prepare:
                self.backend.prepare()
        self._registered = sorted(_operators() - operators)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let this side's modules, search path and folder be those of the process."""
        before, folder = list(sys.path), Path.cwd()
        sys.path[:] = self._path
        os.chdir(self.side.folder)
        sys.modules.update(self._modules)
        try:
            yield
        finally:
            self._path = list(sys.path)
            for name in self._own():
                self._modules[name] = sys.modules.pop(name)
            sys.path[:] = before
            os.chdir(folder)

    def describe(self) -> Loaded:
        """Tell what has been loaded."""
        home = self.side.target.rpartition(":")[0]
        named = self._modules.get(home) or sys.modules.get(home)
        file = _file(named)
        depth = home.count(".") + (Path(file).name == "__init__.py") if file else 0
        return Loaded(
            modules=len(self._modules),
            place=file,
            depth=depth,
            alone=self._alone(),
            able=self.backend.able,
            dtypes=frozenset(self.backend.known_dtypes),
        )

    def _own(self) -> list[str]:
        """Name the modules that came from the side's tree; an environment in it is not of it."""
        tree = f"{self.side.tree}{os.sep}"
        return [
            name
            for name, module in list(sys.modules.items())
            if (file := _file(module)).startswith(tree) and "site-packages" not in Path(file).parts
        ]

    def _alone(self) -> str:
        """Say why this side needs a process of its own."""
        if self.backend.compiled:
            return "torch.compile keeps what it compiled by the names of modules"
        if self._registered:
            return f"it registers the operator {self._registered[0]} with torch, which has one each"
        for name, module in self._modules.items():
            if not _file(module).endswith(_SOURCE):
                return f"{name} is an extension module, which a process loads once"
        return ""


def _file(module: ModuleType | None) -> str:
    """Give a module's file, without waking a lazy one; empty where there is none."""
    return str(getattr(module, "__dict__", {}).get("__file__") or "")


def _operators() -> set[str]:
    """Name the operators that torch knows: two sides' of one name would be one operator."""
    return set(torch._C._dispatch_get_all_op_names())
