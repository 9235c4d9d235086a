"""Print for people, on terminals and in pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from typing import TYPE_CHECKING, Final, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH: Final = 80


def show(write: Callable[[Console], None], *, err: bool = False) -> None:
    """Render with Rich and print the result at once.

    Parameters
    ----------
    write : callable
        Prints to the console that it is given.
    err : bool
        Whether it goes to stderr.
    """
    from rich.console import Console

    stream: TextIO | None = sys.stderr if err else sys.stdout
    if stream is None:  # a closed descriptor
        return
    real = Console(file=stream)
    page = StringIO()
    width = real.width or _WIDTH  # COLUMNS=0 would leave no room for a word
    write(Console(file=page, force_terminal=real.is_terminal, width=width))
    emit(page.getvalue(), stream)


def emit(text: str, stream: TextIO) -> None:
    """Print a text; a reader that has gone away is no error.

    Parameters
    ----------
    text : str
    stream : TextIO

    Raises
    ------
    click.ClickException
        If the stream can't be written to for another reason, such as a full disk.
    """
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _silence(stream)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        _silence(stream)
        raise click.ClickException(f"can't print the report: {error.strerror}") from error


def _silence(stream: TextIO) -> None:
    """Let what is still in the stream's buffer go nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
