"""Files that hold parts of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from embconform.conformance.render.matrix.model import Column
    from embconform.conformance.running.merging import Piece

_LARGEST: Final = 512 * 2**20


def read_pieces(path: Path) -> list[Piece]:
    """Read the parts of runs that a JSON report holds, one a target.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Piece

    Raises
    ------
    click.UsageError
        If it can't be read, or holds something else; one line.
    """
    from embconform.conformance.running.merging import Piece
    from embconform.conformance.running.part_record import RecordError, read

    documents = _documents(path)
    pieces = []
    for document in documents:
        try:
            pieces.append(Piece(str(path), str(document["target"]), read(document)))
        except RecordError as error:
            raise click.UsageError(f"{path}: {error}") from error
    return pieces


def read_columns(path: Path) -> list[Column]:
    """Read the reports that a file holds, whole ones or condensed ones.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Column

    Raises
    ------
    click.UsageError
        If it can't be read, or holds something else; one line.
    """
    from embconform.conformance.render.matrix.reading import ReadingError, column

    try:
        return [column(document) for document in read_json(path)]
    except ReadingError as error:
        raise click.UsageError(f"can't use {path}: {error}") from error


def _text(path: Path) -> str:
    """Read a file that may turn out to be anything: a pipe, /dev/zero, something without end."""
    if path.exists() and not path.is_file():
        raise click.UsageError(f"{path} is no file; give what validate --json wrote")
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise click.UsageError(f"{path} is larger than any report of embconform")
    return data.decode("utf-8")


def read_json(path: Path) -> list[Any]:
    """Read the objects that a file of JSON holds, one or a list.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list

    Raises
    ------
    click.UsageError
        If it can't be read, or is empty; one line.
    """
    try:
        found = json.loads(_text(path))
    except (OSError, ValueError, RecursionError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise click.UsageError(f"can't read {path} as JSON: {told}") from error
    documents = found if isinstance(found, list) else [found]
    if not documents:
        raise click.UsageError(f"{path} holds no report")
    return documents


def _documents(path: Path) -> Sequence[dict[str, Any]]:
    from embconform.conformance.render.json import SCHEMA

    documents = read_json(path)
    for document in documents:
        if not (
            isinstance(document, dict) and {"schema", "embconform", "target"} <= document.keys()
        ):
            raise click.UsageError(f"{path} is no report of embconform validate --json")
        if document["schema"] != SCHEMA:
            raise click.UsageError(
                f"{path} has schema {document['schema']!r}; this embconform reads schema {SCHEMA}"
            )
    return documents
