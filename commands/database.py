"""Where failing cases persist: a folder, a Redis server, a team's artifact, or nowhere."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from embconform.backends.cache import cache_folder
from embconform.commands.github_database import FORM, github

if TYPE_CHECKING:
    from datetime import timedelta

    from hypothesis.database import ExampleDatabase

_PATIENCE: Final = 5.0
_KEPT_DAYS: Final = 90
_FORMS: Final = f"no folder, no redis://HOST:PORT/NUMBER, no {FORM.split()[0]} and not none"


def default_folder() -> Path:
    """Give the folder for what is run from the working directory, in the user's cache."""
    here = Path.cwd()
    digest = hashlib.sha256(str(here).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return cache_folder() / f"{here.name or 'root'}-{digest}"


def open_database(where: str | None) -> ExampleDatabase | None:
    """Open the database of failing cases.

    Parameters
    ----------
    where : str or None
        A folder, ``redis://HOST:PORT/NUMBER``, ``github://OWNER/REPOSITORY/ARTIFACT``, ``none``, or
        None for the default folder.

    Returns
    -------
    ExampleDatabase or None

    Raises
    ------
    click.UsageError
        If it can't be used.
    """
    from hypothesis.database import DirectoryBasedExampleDatabase

    from embconform.conformance.render.files import why_no_folder

    if where == "none":
        return None
    if where == "":
        raise click.UsageError(f"--database '' is {_FORMS}")
    if where and where.startswith("github:"):
        return _github(where)
    if where and "://" in where:
        return _redis(where)
    folder = default_folder() if where is None else Path(where)
    reason = why_no_folder(folder)
    if reason and where is None:
        return None  # a home that can't be written to is no reason not to run
    if reason:
        raise click.UsageError(f"can't use --database {where}: {reason}")
    return DirectoryBasedExampleDatabase(folder)


def _github(url: str) -> ExampleDatabase:
    """Read what the team's CI found, and keep what is found here in the default folder."""
    from hypothesis.database import MultiplexedDatabase

    shared = github(url, cache_folder(), _PATIENCE)
    local = open_database(None)
    return MultiplexedDatabase(local, shared) if local else shared


def _redis(url: str) -> ExampleDatabase:
    if url.partition("://")[0].lower() not in ("redis", "rediss"):
        raise click.UsageError(f"--database {_shown(url)} is {_FORMS}")
    try:
        from hypothesis.extra.redis import RedisExampleDatabase
        from redis import Redis, RedisError
    except ImportError as error:
        raise click.UsageError(
            "--database redis://… needs a package: pip install 'embconform[redis]'"
        ) from error
    try:
        server = Redis.from_url(url, socket_connect_timeout=_PATIENCE, socket_timeout=_PATIENCE)
        server.ping()
    except (RedisError, OSError, ValueError) as error:
        raise click.UsageError(f"can't use --database {_shown(url)}: {error}") from error
    return RedisExampleDatabase(server, expire_after=_days(), key_prefix=b"embconform:")


def _days() -> timedelta:
    from datetime import timedelta

    return timedelta(days=_KEPT_DAYS)


def _shown(url: str) -> str:
    """Leave a password out."""
    return re.sub(r"(?<=://)([^/@]*):[^/]*@", r"\1:…@", url)
