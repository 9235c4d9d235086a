"""The files of embconform gate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from embconform.commands.show import emit


def write_to(path: Path | None, render: Callable[[], str]) -> None:
    """Write a report where the user wants it.

    Parameters
    ----------
    path : Path or None
        ``-`` is stdout; None writes nothing.
    render : callable

    Raises
    ------
    click.ClickException
        With one line, if the file can't be written.
    """
    from embconform.conformance.render.files import write_whole

    if path is None:
        return
    if path == Path("-"):
        emit(render(), sys.stdout)
        return
    try:
        write_whole(path, render())
    except OSError as error:
        raise click.ClickException(f"can't write {path}: {error.strerror or error}") from error
