"""From what the user types to a backend."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from embconform.backends.adapt import as_backend
from embconform.backends.backend import Backend, TargetError
from embconform.backends.catalogue import catalogue, describe, reason_not_to_run
from embconform.backends.source import import_file, place

_FORMS = "a name (see: embconform backends), package.module:attr or path/to/file.py:attr"


def resolve(target: str) -> Backend:
    """Find, import and wrap the embedding that a target names.

    Parameters
    ----------
    target : str
        A name of the catalogue, ``package.module:attr`` or ``path/to/file.py:attr``.

    Returns
    -------
    Backend

    Raises
    ------
    TargetError
        With one line that says what was tried and what would work.
    """
    target = target.strip()
    named = catalogue()
    if target in named:
        path = named[target].path
        if reason := reason_not_to_run(path):
            raise TargetError(f"{target} can't run here: {reason}")
        return _load(target, *_split(path))
    if not target:
        raise TargetError(f"the target is empty; give {_FORMS}")
    if ":" not in target:
        raise TargetError(_without_attribute(target, named))
    home, attr = _split(target)
    if not home or not attr:
        raise TargetError(f"{target!r} is not a target; give {_FORMS}")
    return _load(target, home, attr)


def _split(target: str) -> tuple[str, str]:
    """Split at the last colon, so that a drive letter stays with its path."""
    home, _, attr = target.rpartition(":")
    return home, attr


def _load(target: str, home: str, attr: str) -> Backend:
    """Import a module or a file and wrap the object in it."""
    is_file = home.endswith(".py") or "/" in home or "\\" in home
    module = _import_path(target, Path(home)) if is_file else _import_module(target, home)
    found = _attribute(target, module, home, attr)
    return as_backend(target, found)


def _import_path(target: str, path: Path) -> ModuleType:
    """Import a file."""
    try:
        if not path.is_file():
            raise TargetError(f"{target}: {_no_file(path)}")
    except OSError as error:  # such as a name that is too long
        raise TargetError(f"{target}: can't read it: {error.strerror}") from error
    try:
        return import_file(path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise TargetError(
            f"{target}: importing {path} failed: {describe(error)}{place(error)}{_relative(error)}"
        ) from error


def _import_module(target: str, name: str) -> ModuleType:
    """Import a module, with the current folder on the path as ``python -m`` has it."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"{target}: {name!r} is no module's name; give {_FORMS}")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise TargetError(_no_module(target, name, error.name)) from error
        raise _raised(target, name, error) from error
    except BaseException as error:
        raise _raised(target, name, error) from error


def _relative(error: BaseException) -> str:
    """Add what to do about a relative import, which a single file can't have."""
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "; for a file of a package write package.module:attr"
    return ""


def _raised(target: str, name: str, error: BaseException) -> TargetError:
    """Word an import that raised."""
    return TargetError(f"{target}: importing {name} failed: {describe(error)}{place(error)}")


def _attribute(target: str, module: ModuleType, home: str, attr: str) -> Any:
    """Follow a dotted name inside a module."""
    found: Any = module
    seen = ""
    for name in attr.split("."):
        try:
            found = getattr(found, name)
        except KeyboardInterrupt:
            raise
        except AttributeError:
            where = f"{home}:{seen}" if seen else home
            public = [word for word in dir(found) if not word.startswith("_")]
            raise TargetError(f"{target}: {where} has no {name!r}{_hint(name, public)}") from None
        except BaseException as error:
            raise TargetError(f"{target}: reading {name!r} failed: {describe(error)}") from error
        seen = f"{seen}.{name}" if seen else name
    return found


def _without_attribute(target: str, names: Iterable[str]) -> str:
    """Word a target that has no colon and is no name."""
    path = Path(target)
    if target.endswith(".py"):
        if not path.is_file():
            return f"{target}: {_no_file(path)}"
        defined = ", ".join(_defined(path)[:5])
        return f"{target}: say what in the file is to be judged, as in {target}:{defined or 'attr'}"
    hint = _hint(target, names)
    if "." in target and not hint:
        home, _, attr = target.rpartition(".")
        return f"no backend is called {target!r}; for a module's attribute write {home}:{attr}"
    if hint:
        return f"no backend is called {target!r}{hint} (see: embconform backends)"
    return f"no backend is called {target!r}; a target is {_FORMS}"


def _defined(path: Path) -> list[str]:
    """List the functions and classes of a file without running it."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in body if isinstance(node, kinds) and node.name[0] != "_"]


def _no_file(path: Path) -> str:
    """Word a file that isn't there."""
    if path.is_dir():
        return f"{path} is a folder; name a .py file in it"
    if not path.parent.is_dir():
        return f"no folder {path.parent}"
    others = [other.name for other in path.parent.glob("*.py")]
    return f"no file {path}{_hint(path.name, others)}"


def _no_module(target: str, name: str, missing: str) -> str:
    """Word a module that isn't there."""
    if (as_path := Path(f"{name.replace('.', '/')}.py")).is_file():
        return f"{target}: no module named {missing!r}; for the file write {as_path}:attr"
    package, _, last = missing.rpartition(".")
    if package:
        return f"{target}: {package} has no module {last!r}{_hint(last, _inside(package))}"
    return (
        f"{target}: no module named {missing!r}, neither in the current folder nor installed in "
        f"the environment of {sys.executable}"
    )


def _inside(package: str) -> list[str]:
    """List the modules of an imported package."""
    from pkgutil import iter_modules

    path = getattr(sys.modules.get(package), "__path__", [])
    return [module.name for module in iter_modules(path)]


def _hint(word: str, known: Iterable[str]) -> str:
    """Write a did-you-mean, or nothing."""
    close = get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
