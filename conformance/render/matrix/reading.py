"""From a report as JSON holds it to a column of the matrix."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from embconform.conformance.render.json import SCHEMA
from embconform.conformance.render.matrix import support
from embconform.conformance.render.matrix.model import Cell, Column
from embconform.conformance.render.wording import clean, one_line
from embconform.conformance.report import Failure, Status

_VERDICTS: Final = ("conformant", "nonconformant")
_T = TypeVar("_T")


class ReadingError(ValueError):
    """What was given is no report; the message is one line that says why."""


def column(document: Any) -> Column:
    """Read a report.

    Parameters
    ----------
    document : object
        What ``embconform validate --json`` writes, or the condensed form that docs/reports holds:
        clause ids by status.

    Returns
    -------
    Column

    Raises
    ------
    ReadingError
        If it is neither, or only a shard's.
    """
    if not isinstance(document, dict) or "target" not in document or "verdict" not in document:
        raise ReadingError("it is no report of embconform validate --json")
    if "schema" in document:
        if document["schema"] != SCHEMA:
            raise ReadingError(
                f"it has schema {document['schema']!r}; this embconform reads schema {SCHEMA}"
            )
        _refuse_shard(document)
        cells = _cells(document)
    else:
        cells = _condensed_cells(document)
    if not cells:
        raise ReadingError("it holds no clause")
    return _column(document, cells)


def _column(document: dict[str, Any], cells: dict[str, Cell]) -> Column:
    environment = _get(document, "environment", dict)
    verdict = _text(document, "verdict")
    if verdict not in _VERDICTS:
        raise ReadingError(
            f"its verdict is {verdict!r}, which is none of {' and '.join(_VERDICTS)}"
        )
    read = Column(
        target=one_line(_text(document, "target")),
        profile=one_line(_text(document, "profile")),
        device=one_line(_text(document, "device")),
        budget=one_line(_text(document, "budget")),
        verdict=verdict,
        seed=_get(document, "seed", int),
        cases=_get(document, "cases", int),
        environment={one_line(str(k)): one_line(str(v)) for k, v in environment.items()},
        replay=_replay(document),
        cells=cells,
        missing=_missing(document, cells),
        notes=_notes(document),
    )
    if not read.target:
        raise ReadingError("it names no target")
    return read


def _refuse_shard(document: dict[str, Any]) -> None:
    part = document.get("part")
    if isinstance(part, dict) and part.get("of", 1) != 1:
        shard, of = part.get("shard"), part["of"]
        raise ReadingError(f"it is shard {shard}/{of} of a run; join them with embconform merge")


def _missing(document: dict[str, Any], cells: dict[str, Cell]) -> frozenset[str]:
    """Say what the backend lacks by its own declaration, and what it lacks in effect."""
    lacking = support.inferred({clause: cell.status for clause, cell in cells.items()})
    able = document.get("supports")
    if able is None:
        return lacking
    if not isinstance(able, list) or not all(isinstance(name, str) for name in able):
        raise ReadingError("its key 'supports' is no list of names")
    return lacking | support.missing(able)


def _replay(document: dict[str, Any]) -> str:
    """Take the command line of a run, or make the one that repeats it."""
    said = document.get("replay")
    if isinstance(said, str) and said:
        return one_line(said)
    words = ["embconform", "validate", _text(document, "target")]
    for name in ("profile", "seed", "budget"):
        words += [f"--{name}", str(document.get(name))]
    return one_line(shlex.join(words))


def _notes(document: dict[str, Any]) -> tuple[str, ...]:
    """List what a person should know of the run, besides the clauses."""
    tampered = _list(document, "tampered")
    return (
        *(("the run was interrupted",) if document.get("interrupted") else ()),
        *((f"functions replaced by the target: {', '.join(map(str, tampered))}",) * bool(tampered)),
        *(one_line(str(note)) for note in _list(document, "notes")),
    )


def _cells(document: dict[str, Any]) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    for entry in _get(document, "clauses", list):
        if not isinstance(entry, dict):
            raise ReadingError("an entry of its key 'clauses' is no object")
        name = _clause_id(entry.get("id"))
        if name in cells:
            raise ReadingError(f"it holds {name} twice")
        cells[name] = _cell(entry)
    return cells


def _cell(entry: dict[str, Any]) -> Cell:
    failure = _optional(entry, "failure", dict) or {}
    deviation = _optional(entry, "deviation", dict) or {}
    script = _optional(entry, "repro", str) or ""
    return Cell(
        status=_status(_text(entry, "status")),
        level=one_line(_text(entry, "level")),
        profile=one_line(_text(entry, "profile")),
        sentence=one_line(_text(entry, "sentence")),
        counts_against=_get(entry, "counts_against", bool),
        exercised=_get(entry, "exercised", int),
        failed=_get(entry, "failed", int),
        detail=one_line(_text(entry, "detail")),
        trouble=_trouble(failure, script) if failure else None,
        reason=one_line(_optional(deviation, "reason", str) or ""),
        link=one_line(_optional(deviation, "link", str) or ""),
    )


def _trouble(failure: dict[str, Any], script: str) -> Failure:
    ulp = failure.get("ulp")
    return Failure(
        message=one_line(_text(failure, "message")),
        got=one_line(_text(failure, "got")),
        exact=one_line(_text(failure, "exact")),
        bound=one_line(_text(failure, "bound")),
        ulp=float(ulp) if isinstance(ulp, int | float) else None,
        call=clean(_text(failure, "call")),
        script=clean(script),
        indices=_get(failure, "indices", int),
        rows=_get(failure, "rows", int),
    )


def _condensed_cells(document: dict[str, Any]) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    for status in Status:
        for name, told in _entries(document.get(status.value, {})).items():
            cells[_clause_id(name)] = Cell(
                status,
                detail=one_line(str(told.get("detail", ""))),
                reason=one_line(str(told.get("reason", ""))),
                link=one_line(str(told.get("link", ""))),
            )
    return cells


def _entries(group: Any) -> dict[Any, Mapping[str, Any]]:
    """Read the clauses of one status: a list of ids, or what is told of each."""
    if isinstance(group, list):
        return {name if isinstance(name, str) else "": {} for name in group}
    if isinstance(group, dict) and all(isinstance(told, dict) for told in group.values()):
        return group
    raise ReadingError("what it holds for a status is no list of clause ids")


def _clause_id(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ReadingError("a clause in it has no id")
    return one_line(name)


def _status(name: str) -> Status:
    try:
        return Status(name)
    except ValueError as error:
        raise ReadingError(f"it has a status {name!r}, which is none of ours") from error


def _text(mapping: Mapping[str, Any], key: str) -> str:
    return _get(mapping, key, str)


def _list(mapping: Mapping[str, Any], key: str) -> list[Any]:
    return _optional(mapping, key, list) or []


def _get(mapping: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    value = _optional(mapping, key, kind)
    if value is None:
        raise ReadingError(f"its key {key!r} is missing")
    return value


def _optional(mapping: Mapping[str, Any], key: str, kind: type[_T]) -> _T | None:
    value = mapping.get(key)
    if value is not None and (not isinstance(value, kind) or (kind is int and value is True)):
        raise ReadingError(f"its key {key!r} is no {_KINDS[kind]}")
    return value


_KINDS: Final[dict[type, str]] = {
    str: "text",
    int: "whole number",
    bool: "true or false",
    list: "list",
    dict: "object",
}
