"""Import a user's file, and find the line of it that raised."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Final

INSTALLED: Final = tuple(
    sysconfig.get_paths()[scheme] for scheme in ("stdlib", "platstdlib", "purelib", "platlib")
)
"""Folders of Python's own library and of what is installed beside it."""
_OURS: Final = str(Path(__file__).parent)


def import_file(path: Path) -> ModuleType:
    """Run a Python file as a module of its own name.

    The module stays in ``sys.modules``, so that its classes can be pickled; the same file,
    unchanged, is run once. No bytecode is written beside the file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    ModuleType

    Raises
    ------
    BaseException
        Whatever the file raises.
    """
    import torch  # noqa: F401 - before the file's folder can shadow what torch imports

    full = path.resolve()
    source = full.read_bytes()
    digest = sha256(str(full).encode() + b"\0" + source).hexdigest()[:12]
    name = f"_embconform_{full.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(full))
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _folder_on_path(str(full.parent)):
            exec(loader.source_to_code(source, str(full)), module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def place(error: BaseException) -> str:
    """Name the line of the user's code that raised.

    Parameters
    ----------
    error : BaseException

    Returns
    -------
    str
        `` (file.py:3)``, or nothing where no line of the user's is known.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({_short(error.filename)}:{error.lineno})"
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_code(frame.f_code.co_filename)
    ]
    users = [frame for frame in frames if not frame[0].startswith(INSTALLED)]
    for file, line in reversed(users or frames):
        return f" ({_short(file)}:{line})"
    return ""


def _is_code(file: str) -> bool:
    """Tell whether a frame's file is one, and not of our importing."""
    return not file.startswith(("<", _OURS)) and "importlib" not in Path(file).parts


def _short(file: str) -> str:
    """Give a path as the user would type it."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


@contextmanager
def _folder_on_path(folder: str) -> Iterator[None]:
    """Put a folder first on ``sys.path``, and last afterwards: functions may import late."""
    if folder in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.append(folder)
