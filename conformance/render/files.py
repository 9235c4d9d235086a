"""Write files whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it.

    Parameters
    ----------
    path : Path
        A regular file is replaced; anything else that exists (a pipe, /dev/stdout) is written to.
    text : str

    Raises
    ------
    OSError
        If it can't be written; nothing is left behind then.
    """
    data = text.encode("utf-8", "backslashreplace")
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            stream.write(data)
        return
    final = path.resolve()
    part = final.with_name(f".{final.name[:200]}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        if final.exists():
            part.chmod(final.stat().st_mode & 0o7777)
        part.replace(final)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def why_not_writable(path: Path) -> str | None:
    """Say why a file can't be written, leaving no trace of having tried.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str or None
        None where it can be written.
    """
    try:
        if path.is_dir():
            return "it is a folder"
        if path.exists():
            if not os.access(path, os.W_OK):
                return "permission denied"
            if not path.is_file():
                return None
        return _why_not_in(path.resolve().parent)
    except (OSError, ValueError, RuntimeError) as error:
        return _reason(error)


def why_no_folder(path: Path) -> str | None:
    """Say why a folder can't be filled or made, leaving no trace of having tried.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str or None
        None where it can.
    """
    try:
        nearest = path.resolve()
        while not nearest.exists():
            nearest = nearest.parent
        return _why_not_in(nearest)
    except (OSError, ValueError, RuntimeError) as error:
        return _reason(error)


def _why_not_in(folder: Path) -> str | None:
    """Try a folder by making an empty file in it and taking it away again."""
    if not folder.exists():
        return f"there is no folder {folder}"
    if not folder.is_dir():
        return f"{folder} is not a folder"
    probe = folder / f".embconform.{os.getpid()}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return _reason(error)
    return None


def _reason(error: BaseException) -> str:
    """Word an error of the operating system."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return told[:1].lower() + told[1:]
