"""Known deviations: failures that a backend's authors know of, declared as data."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from embconform.backends.backend import TargetError
from embconform.reference.clause import registry

_REQUIRED: Final = ("clause", "reason", "link")
_KEYS: Final = (*_REQUIRED, "versions")


class DeviationFileError(TargetError):
    """A file of deviations that can't be used; its message is one line for the user."""


@dataclass(frozen=True)
class Deviation:
    """A known failure, declared in a backend's TOML file.

    Attributes
    ----------
    clause : str
        Clause id.
    reason : str
        One line.
    link : str
        Where the repro stands.
    versions : dict of str to str
        Distribution name to version specifier (PEP 440); the row counts where all match.
    """

    clause: str
    reason: str
    link: str
    versions: dict[str, str] = field(default_factory=dict)


def load(path: Path) -> tuple[Deviation, ...]:
    """Read the ``[[deviation]]`` rows of a TOML file.

    Parameters
    ----------
    path : Path
        A file, or the name of a built-in backend, whose rows a thin wrapper shares.

    Returns
    -------
    tuple of Deviation
        All rows, whatever versions they are for; see :func:`active`.

    Raises
    ------
    DeviationFileError
        If the file can't be read or a row is wrong.
    """
    built_in = Path(__file__).with_name(f"{path.name}.toml")
    try:
        if path.name == str(path) and not path.exists() and built_in.exists():
            path = built_in
        if path.exists() and not path.is_file():
            raise DeviationFileError(f"can't read deviations {path}: it is no file")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeviationFileError(f"can't read deviations {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DeviationFileError(f"deviations {path} is not TOML: {error}") from error
    except ValueError as error:  # a null byte in the path
        raise DeviationFileError(f"can't read deviations {path}: {error}") from error
    for name in document:
        if name != "deviation":
            raise DeviationFileError(
                f"deviations {path}: unknown name {name!r}{_hint(name, ['deviation'])}; "
                "rows are [[deviation]] tables"
            )
    rows = document.get("deviation", [])
    if not isinstance(rows, list):
        raise DeviationFileError(f"deviations {path}: rows are [[deviation]] tables")
    return tuple(_row(row, f"deviations {path}, row {n}") for n, row in enumerate(rows, 1))


def active(
    rows: Iterable[Deviation], installed: Callable[[str], str] = version
) -> tuple[Deviation, ...]:
    """Keep the rows whose versions match what is installed.

    Parameters
    ----------
    rows : iterable of Deviation
    installed : callable, optional
        Gives the version of a distribution or raises PackageNotFoundError.

    Returns
    -------
    tuple of Deviation
        A row that names a distribution which isn't installed is left out.
    """
    return tuple(
        row
        for row in rows
        if all(_matches(name, wanted, installed) for name, wanted in row.versions.items())
    )


def _matches(name: str, wanted: str, installed: Callable[[str], str]) -> bool:
    """Tell whether the installed version, without its local and dev parts, is among the wanted."""
    try:
        base = Version(installed(name)).base_version
    except (PackageNotFoundError, InvalidVersion):
        return False
    return SpecifierSet(wanted).contains(base, prereleases=True)


def _row(row: Any, where: str) -> Deviation:
    """Check one row."""
    if not isinstance(row, dict):
        raise DeviationFileError(f"{where}: rows are [[deviation]] tables")
    for key in row:
        if key not in _KEYS:
            raise DeviationFileError(
                f"{where}: unknown key {key!r}{_hint(key, _KEYS)}; keys are {', '.join(_KEYS)}"
            )
    for key in _REQUIRED:
        if key not in row:
            raise DeviationFileError(f"{where}: {key!r} is missing")
        if not isinstance(row[key], str) or not row[key].strip():
            raise DeviationFileError(f"{where}: {key!r} must be a text that isn't empty")
    clause = row["clause"]
    if clause not in registry():
        raise DeviationFileError(f"{where}: no clause {clause!r}{_hint(clause, registry())}")
    versions = row.get("versions", {})
    _check_versions(versions, where)
    return Deviation(clause, row["reason"], row["link"], dict(versions))


def _check_versions(versions: Any, where: str) -> None:
    """Check the table of versions."""
    if not isinstance(versions, dict):
        raise DeviationFileError(
            f"{where}: 'versions' must be a table such as {{torch = \">=2.9,<2.14\"}}"
        )
    for name, wanted in versions.items():
        try:
            SpecifierSet(wanted)
        except (InvalidSpecifier, TypeError, AttributeError) as error:
            raise DeviationFileError(
                f"{where}: {wanted!r} is no version specifier for {name!r}; "
                'write it like ">=2.9,<2.14"'
            ) from error


def _hint(word: str, known: Iterable[str]) -> str:
    """Write a did-you-mean, or nothing."""
    close = get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
