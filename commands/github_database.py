"""Failing cases that a team's CI uploads as an artifact of GitHub Actions."""

from __future__ import annotations

import os
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from hypothesis.database import ExampleDatabase

FORM: Final = "github://OWNER/REPOSITORY or github://OWNER/REPOSITORY/ARTIFACT"
ARTIFACT: Final = "embconform-failures"
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_OLD: Final = "expired artifact"


def github(url: str, cache: Path, patience: float) -> ExampleDatabase:
    """Open an artifact for reading; it is fetched once a day.

    Parameters
    ----------
    url : str
        ``github://OWNER/REPOSITORY/ARTIFACT``, the artifact's name last and optional.
    cache : Path
        A folder for what is fetched; it need not exist.
    patience : float
        Seconds to wait for GitHub's next word.

    Returns
    -------
    ExampleDatabase
        What is written to it goes nowhere.

    Raises
    ------
    click.UsageError
        If there is no such artifact, it can't be fetched, or it holds something else.
    """
    from hypothesis.database import GitHubArtifactDatabase, ReadOnlyDatabase

    match = re.fullmatch(rf"github://({_NAME})/({_NAME})(?:/({_NAME}))?", url)
    if not match:
        raise click.UsageError(f"--database {url} is not {FORM}")
    owner, repository, artifact = match[1], match[2], match[3] or ARTIFACT
    folder = cache / "github" / owner / repository / artifact
    database = GitHubArtifactDatabase(owner, repository, artifact, path=folder)
    if reason := _why_not(database, patience):
        raise click.UsageError(f"can't use --database {url}: {reason}")
    return ReadOnlyDatabase(database)


def _why_not(database: ExampleDatabase, patience: float) -> str:
    """Fetch the artifact now, and say why that failed; nothing where it did not."""
    with warnings.catch_warnings(record=True) as told, _waiting(patience):
        warnings.simplefilter("always")
        try:
            list(database.fetch(b""))
        except OSError as error:
            return f"{error.strerror or error}"
        except (ValueError, KeyError, TypeError) as error:
            return f"GitHub's answer can't be read ({type(error).__name__})"
    said = [" ".join(str(warning.message).split()) for warning in told]
    if not said or any(_OLD in text for text in said):
        return ""
    token = "" if os.environ.get("GITHUB_TOKEN") else "; GITHUB_TOKEN is not set"
    return f"{said[0].rstrip('.')}{token}"


@contextmanager
def _waiting(seconds: float) -> Iterator[None]:
    """Let no connection wait longer for its next bytes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
