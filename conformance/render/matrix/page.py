"""The matrix as one page that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import asdict
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment

from embconform import __version__
from embconform.conformance.render.matrix.model import MEANINGS, SYMBOLS, Cell, Column, Matrix
from embconform.conformance.render.matrix.support import words
from embconform.conformance.render.wording import ORDER
from embconform.conformance.report import Status
from embconform.reference.clause import Level, Profile

LARGEST: Final = 1_000_000
"""Bytes that a page may have: what a phone loads at once and a forge shows."""
_COMMON: Final = frozenset({"embconform", "numpy", "hypothesis", "python", "system", "threads"})
"""What is the same for most reports, and told nowhere."""


class TooLargeError(ValueError):
    """Reports that no page can hold; the message is one line."""


def render(matrix: Matrix) -> str:
    """Write reports side by side as one HTML page.

    Parameters
    ----------
    matrix : Matrix

    Returns
    -------
    str
        At most :data:`LARGEST` bytes in UTF-8. Scripts that reproduce failures are in it if they
        fit.

    Raises
    ------
    TooLargeError
        If the reports don't fit even so.
    """
    for scripts in (True, False):
        page = _page(matrix, scripts=scripts)
        size = len(page.encode())
        if size <= LARGEST:
            return page
    raise TooLargeError(
        f"{len(matrix.columns)} reports make a page of {size / 1e6:.1f} MB, and it may have "
        f"{LARGEST / 1e6:.0f} MB; give fewer of them"
    )


def _page(matrix: Matrix, *, scripts: bool) -> str:
    """Fill the template."""
    environment = Environment(autoescape=True, trim_blocks=False)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    kept: list[str] = []
    data = _data(matrix, kept if scripts else None)
    return environment.from_string(_asset("page.html.j2")).render(
        version=__version__,
        names=matrix.names,
        columns=matrix.columns,
        groups=matrix.groups,
        backends=[
            _backend(name, column)
            for name, column in zip(matrix.names, matrix.columns, strict=True)
        ],
        headline=headline(matrix),
        symbols=SYMBOLS,
        statuses=[
            {"name": status.value, "symbol": SYMBOLS[status], "meaning": MEANINGS[status]}
            for status in ORDER
        ],
        levels=[level.value for level in Level],
        profiles=[profile.value for profile in Profile],
        style=_asset("page.css"),
        script=script,
        script_hash=f"sha256-{digest}",
        data=data,
        scripts=base64.b64encode(zlib.compress(json.dumps(kept).encode(), 9)).decode(),
    )


def headline(matrix: Matrix) -> str:
    """Say in a few words what the matrix is of.

    Parameters
    ----------
    matrix : Matrix

    Returns
    -------
    str
    """
    clauses = sum(map(len, matrix.groups.values()))
    good = sum(column.conformant for column in matrix.columns)
    number = len(matrix.columns)
    backends = "1 backend" if number == 1 else f"{number} backends"
    return f"{clauses} clauses in {len(matrix.groups)} groups; {good} of {backends} conformant"


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _backend(name: str, column: Column) -> dict[str, Any]:
    """Say what the first table shows of a report."""
    found = column.count(column.cells)
    told = {key: value for key, value in column.environment.items() if key not in _COMMON}
    return {
        "name": name,
        "column": column,
        "supports": ", ".join(words(column.missing)),
        "counts": ", ".join(f"{found[status]} {status.value}" for status in ORDER if found[status]),
        "versions": ", ".join(f"{key} {value}" for key, value in told.items()),
    }


def _data(matrix: Matrix, scripts: list[str] | None) -> dict[str, Any]:
    """Write down what the page's script needs, without what is empty."""
    ids = [row.id for rows in matrix.groups.values() for row in rows]
    return {
        "signs": {status.value: SYMBOLS[status] for status in ORDER},
        "meanings": {status.value: MEANINGS[status] for status in ORDER},
        "clauses": [
            _filled(asdict(row)) | {"group": row.group}
            for rows in matrix.groups.values()
            for row in rows
        ],
        "columns": [
            {
                "name": name,
                "profile": column.profile,
                "replay": column.replay,
                **_cells(column, ids, scripts),
            }
            for name, column in zip(matrix.names, matrix.columns, strict=True)
        ],
    }


def _cells(column: Column, ids: list[str], scripts: list[str] | None) -> dict[str, Any]:
    """Write cells down; those that say no more than that they passed, most of them, by number."""
    cells = {clause: _cell(cell, scripts) for clause, cell in column.cells.items()}
    passed = {"status": Status.PASS.value}
    return {
        "passed": [number for number, clause in enumerate(ids) if cells.get(clause) == passed],
        "cells": {clause: cell for clause, cell in cells.items() if cell != passed},
    }


def _cell(cell: Cell, scripts: list[str] | None) -> dict[str, Any]:
    trouble = asdict(cell.trouble) if cell.trouble else {}
    script = trouble.pop("script", "")
    told = _filled(
        {
            "status": cell.status.value,
            "against": cell.counts_against,
            "exercised": cell.exercised,
            "failed": cell.failed or None,
            "detail": "" if cell.detail == trouble.get("message") else cell.detail,
            "reason": cell.reason,
            "link": cell.link,
            **trouble,
        }
    )
    if script and scripts is not None:
        told["script"] = len(scripts)
        scripts.append(script)
    return told


def _filled(entries: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing."""
    return {key: value for key, value in entries.items() if value not in ("", None)}
