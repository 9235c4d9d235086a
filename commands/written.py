"""Write one text where the user wants it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from embconform.commands.show import emit

STDOUT: Final = Path("-")


def write_text(path: Path, text: str, option: str = "") -> None:
    """Write a file whole, or stdout for ``-``.

    Parameters
    ----------
    path : Path
    text : str
    option : str
        What the user named the file with, for the message.

    Raises
    ------
    click.ClickException
        With one line, if the file can't be written.
    """
    from embconform.conformance.render.files import write_whole

    if path == STDOUT:
        emit(text, sys.stdout)
        return
    try:
        write_whole(path, text)
    except OSError as error:
        place = f"{option} {path}" if option else str(path)
        raise click.ClickException(f"can't write {place}: {error.strerror or error}") from error
