"""One or several sides of a comparison in one process: whose modules are in force when."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch

from embconform.backends.backend import Backend
from embconform.backends.targets import resolve
from embconform.performance.gate.copies import resolve_there
from embconform.performance.gate.messages import Loaded, Side

_SOURCE: Final = (".py", ".pyc")
_PYTHONS_OWN: Final = (BuiltinImporter, FrozenImporter, PathFinder)


class Seat:
    """A side as it is loaded.

    Two sides have modules of the same names. Those of a side are in ``sys.modules`` while it runs,
    and put away while another does, so that an import inside a function finds its own side's. So
    are modules of the same names that are no side's: the gate's own, where it measures embconform.

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
        self._strangers: dict[str, ModuleType] = {}
        operators = _operators()
        with self.active():
            find = resolve_there if side.is_embconform else resolve
            self.backend: Backend = find(side.target)
            if self.backend.prepare:
                self.backend.prepare()
        self._registered = sorted(_operators() - operators)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let this side's modules, search path and folder be those of the process."""
        before, finders, folder = list(sys.path), list(sys.meta_path), Path.cwd()
        sys.path[:] = self._path
        guarded = [_Elsewhere.unless_pythons(finder, self.side.top) for finder in finders]
        sys.meta_path[:] = guarded
        os.chdir(self.side.folder)
        hidden = {name: sys.modules.pop(name) for name in self._others()}
        sys.modules.update(self._modules)
        try:
            yield
        finally:
            self._path = list(sys.path)
            for name in self._own():
                self._modules[name] = sys.modules.pop(name)
            sys.modules.update(hidden)
            sys.path[:] = before
            sys.meta_path[:] = finders + [new for new in sys.meta_path if new not in guarded]
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
        """Name the modules that came from the side's trees."""
        own = []
        for name, module in list(sys.modules.items()):
            if self._strangers.get(name) is module:
                continue
            if self._is_own(module):
                own.append(name)
            elif _file(module):
                self._strangers[name] = module
        return own

    def _is_own(self, module: ModuleType) -> bool:
        places = [file] if (file := _file(module)) else _folders(module)
        return any(_within(place, tree) for place in places for tree in self.side.trees)

    def _others(self) -> list[str]:
        """Name the modules that are loaded under this side's names and are not its own."""
        if not self.side.packages:
            return []
        return [name for name in sys.modules if name.partition(".")[0] in self.side.packages]

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


def _within(place: str, tree: str) -> bool:
    """Tell whether a file or folder is of a tree; an environment in the tree is not."""
    return place.startswith(f"{tree}{os.sep}") and "site-packages" not in Path(place).parts


def _file(module: ModuleType | None) -> str:
    """Give a module's file, without waking a lazy one; empty where there is none."""
    return str(getattr(module, "__dict__", {}).get("__file__") or "")


def _folders(module: ModuleType | None) -> list[str]:
    """Give the folders of a package that has no file: a namespace."""
    found: Iterable[Any] = getattr(module, "__dict__", {}).get("__path__") or ()
    return [str(folder) for folder in found]


class _Elsewhere:
    """Finds what another finder finds, but nothing in the user's working tree.

    An editable installation has a finder of its own, which would lend head's modules to a base that
    lacks them.
    """

    def __init__(self, finder: Any, top: str) -> None:
        self._finder, self._top = finder, top

    @classmethod
    def unless_pythons(cls, finder: Any, top: str) -> Any:
        """Wrap a finder that does not go by ``sys.path``."""
        return finder if finder in _PYTHONS_OWN else cls(finder, top)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Ask the other finder; as :meth:`importlib.abc.MetaPathFinder.find_spec`."""
        spec: ModuleSpec | None = self._finder.find_spec(name, path, target)
        if spec is None:
            return None
        places = [spec.origin or "", *map(str, spec.submodule_search_locations or ())]
        return None if any(_within(place, self._top) for place in places) else spec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def _operators() -> set[str]:
    """Name the operators that torch knows: two sides' of one name would be one operator."""
    return set(torch._C._dispatch_get_all_op_names())
