"""The whole numbers in a target's own code: blocks, thresholds, sizes of tiles and caches.

A kernel that goes wrong beyond a size has that size in its source. What is read is the code that a
target reaches within its own package or folder, and sources for other compilers that lie there.
"""

from __future__ import annotations

import dis
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from embconform.backends.source import INSTALLED

if TYPE_CHECKING:
    from embconform.backends.backend import Described

LEAST: Final = 8
"""Smaller sizes are met anyway."""
OFTEN_MET: Final = 25
"""Smaller ones are among those that are drawn for every target."""
MOST: Final = 2**21
"""Larger ones take seconds."""
VISITED: Final = 2_000
"""Most objects that are looked at."""
LONGEST: Final = 2**20
"""Most bytes of a source that is read."""
_INSTALLED: Final = tuple(map(Path, INSTALLED))
_INNER: Final = (
    *("__wrapped__", "__func__", "func", "fn", "py_func", "_init_fn", "fget"),
    "_torchdynamo_orig_callable",
)
"""Where functions keep what they were made of: functools, Triton, Numba, torch."""
_SOURCE: Final = re.compile(r"[\w./-]+\.(?:cuh?|cpp|cc|cxx|c|h|hpp|metal)\b")
_NUMBER: Final = re.compile(r"(?<![\w.])(?:(\d+)\s*<<\s*(\d+)|(0[xX][\da-fA-F]+|\d+))(?![\w.])")
_COMMENT: Final = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_SHIFTS: Final = frozenset({"<<", ">>", "<<=", ">>="})
_BITS: Final = 64


def constants(*targets: Any) -> tuple[int, ...]:
    """List the whole numbers in the code of a target.

    Parameters
    ----------
    targets : object
        Functions, classes and what wraps them; None counts for nothing.

    Returns
    -------
    tuple of int
        From :data:`LEAST` to :data:`MOST`, each once, those nearest to the target first. A number
        of bits by which something is shifted stands for the power of two.
    """
    given = [target for target in targets if target is not None]
    homes = {home for one in _with_inner(given) if (home := _home(one))}
    code = _Code(frozenset(homes))
    numbers = (*code.numbers(given), *_beside(code.files))
    return tuple(dict.fromkeys(abs(one) for one in numbers if LEAST <= abs(one) <= MOST))


def own_sizes(backend: Described, most: int) -> list[int]:
    """Choose the numbers in a backend's code near to which sizes are drawn.

    Parameters
    ----------
    backend : Described
        One that is compiled has none: each size would cost seconds.
    most : int

    Returns
    -------
    list of int
        The smallest first.
    """
    return [] if backend.compiled else taken(backend.constants, most)


def taken(constants: Sequence[int], most: int) -> list[int]:
    """Choose some constants: the first, but none below 25 while there are larger ones.

    Parameters
    ----------
    constants : sequence of int
    most : int

    Returns
    -------
    list of int
        The smallest first.
    """
    return sorted(sorted(constants, key=lambda one: one < OFTEN_MET)[:most])


def _with_inner(targets: Iterable[Any]) -> Iterator[Any]:
    """Give functions and classes, and those that they were made of."""
    waiting, seen = deque(targets), list[Any]()
    while waiting and len(seen) < VISITED:
        one = waiting.popleft()
        if not any(one is other for other in seen):
            seen.append(one)
            yield one
            waiting.extend(inner for inner in _inner(one) if callable(inner))


def _inner(one: Any) -> Iterator[Any]:
    if isinstance(one, ModuleType | type):
        return
    if isinstance(one, MethodType):
        yield one.__self__
    for name in _INNER:
        with suppress(Exception):  # whatever an object answers to a name that it may not have
            yield getattr(one, name)
    if isinstance(one, FunctionType):
        yield from _held(one)
    else:
        yield type(one)


def _held(function: FunctionType) -> Iterator[Any]:
    """Give what a function's closure and its defaults hold."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not yet bound
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()


def _file(one: Any) -> Path | None:
    """Find the file that an object's module is from."""
    name = one.__name__ if isinstance(one, ModuleType) else getattr(one, "__module__", None)
    path = getattr(sys.modules.get(name), "__file__", None) if isinstance(name, str) else None
    return Path(path) if isinstance(path, str) else None


def _home(one: Any) -> Path | None:
    """Find the folder of an object's package, or its module's; None for what is not a user's."""
    file = _file(one)
    if file is None or _top(one) in sys.stdlib_module_names | {"torch", "builtins"}:
        return None
    home = file if file.parent in _INSTALLED else file.parent
    for folder in file.parents:
        if not (folder / "__init__.py").exists():
            return home
        home = folder
    return home


def _top(one: Any) -> str:
    """Name the package at the top of an object's module, or of a module's name."""
    name = one.__name__ if isinstance(one, ModuleType) else getattr(one, "__module__", one)
    return str(name).partition(".")[0]


@dataclass(frozen=True)
class _Code:
    """What a target's code reaches.

    Attributes
    ----------
    homes : frozenset of Path
        Folders of the code that is looked into.
    files : dict of (Path, Path)
        Modules that were reached, and their homes.
    """

    homes: frozenset[Path]
    files: dict[tuple[Path, Path], None] = field(default_factory=dict)

    def numbers(self, targets: Iterable[Any]) -> Iterator[int]:
        """Give the whole numbers, those nearest to the targets first."""
        waiting, seen = deque(targets), dict[int, Any]()  # held, lest an id be given twice
        while waiting and len(seen) < VISITED:
            one = waiting.popleft()
            if isinstance(one, bool) or id(one) in seen:
                continue
            seen[id(one)] = one
            if isinstance(one, int):
                yield one
            elif isinstance(one, str):
                yield from _in_source(one) if _is_source(one) else ()
            else:
                waiting.extend(self._within(one))

    def _within(self, one: Any) -> Iterator[Any]:
        if isinstance(one, CodeType):
            yield from _in_code(one)
        elif isinstance(one, tuple | list | set | frozenset):
            yield from one if len(one) < VISITED else ()
        elif isinstance(one, type):
            if self._is_own(one):
                yield from (value for name, value in vars(one).items() if name[:2] != "__")
                yield from one.__bases__
        elif not isinstance(one, ModuleType):
            if not isinstance(one, FunctionType):
                yield from getattr(one, "__dict__", {}).values() if self._is_own(type(one)) else ()
            elif self._is_own(one):
                yield one.__code__
                yield from self._named(one)
            yield from _inner(one)

    def _is_own(self, one: Any) -> bool:
        file = _file(one)
        for home in self.homes if file else ():
            assert file is not None
            if home == file or (home in file.parents and not _is_installed(file, home)):
                self.files[file, home] = None
                return True
        return False

    def _named(self, function: FunctionType) -> Iterator[Any]:
        """Give what the names in a function's code mean, in its module and in others of its own."""
        names, known = dict.fromkeys(_names(function.__code__)), function.__globals__
        modules = [
            _imported(name) for name in names if "." in name and _top(function) == _top(name)
        ]
        for value in [*(known[name] for name in names if name in known), *modules]:
            if not isinstance(value, ModuleType):
                yield value
            elif self._is_own(value):
                yield from (vars(value)[name] for name in names if name in vars(value))


def _is_installed(file: Path, home: Path) -> bool:
    """Tell whether a file below a folder is of a library that is installed there."""
    return any(home in one.parents and one in file.parents for one in _INSTALLED)


def _imported(name: str) -> ModuleType | None:
    """Import a module that a function would import when it is called."""
    try:
        return import_module(name)
    except Exception:
        return None


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _in_code(code: CodeType) -> Iterator[Any]:
    """Give the constants of code, and powers of two for what it shifts by."""
    yield from code.co_consts
    before: Any = None
    for step in dis.get_instructions(code):
        if step.argrepr in _SHIFTS and isinstance(before, int) and 0 <= before < _BITS:
            yield 1 << before
        before = step.argval if step.opname.startswith("LOAD_") else None


def _is_source(text: str) -> bool:
    """Tell whether a string is a kernel in another language."""
    return "{" in text and ";" in text and text.count("\n") > 2


def _in_source(text: str) -> Iterator[int]:
    """Read the numbers of a source in C, C++, CUDA or the like."""
    for base, bits, alone in _NUMBER.findall(_COMMENT.sub(" ", text)):
        if not alone:
            yield int(base) << min(int(bits), _BITS)
        elif alone[:2] in ("0x", "0X"):
            yield int(alone, 16)
        else:
            yield int(alone)


def _beside(files: Iterable[tuple[Path, Path]]) -> Iterator[int]:
    """Read the sources for other compilers that modules name, beside them or in their homes."""
    found = {
        folder / name: None
        for file, home in files
        for name in _SOURCE.findall(_text(file))
        for folder in (file.parent, home)
    }
    for source in found:
        yield from _in_source(_text(source))


def _text(file: Path) -> str:
    """Read a file, but none that is long or can't be read."""
    try:
        if file.stat().st_size <= LONGEST:
            return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        pass
    return ""
