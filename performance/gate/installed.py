"""A revision as pip installs it: into a folder of its own, once a commit."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement

from embconform.performance.gate.revisions import Tree

KEPT_DAYS: Final = 30
"""A revision that no gate has asked for in so long is built again."""
_SITE: Final = "installed"
_OLD_SETUPTOOLS: Final = "setuptools<70.1"
"""These need the package `wheel` besides."""
_QUIET: Final = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_USER": "0",
    "PIP_ROOT_USER_ACTION": "ignore",
}
_RAISED: Final = re.compile(r"(?:\w+\.)*[A-Z]\w*(?:Error|Exception|NotFound)\b: \S")
_COMPLAINED: Final = re.compile(r"(?:\S+:\d+(?::\d+)?: )?(?:fatal )?error: (?!Failed )\S+ ", re.I)
"""A compiler's, setuptools' or pip's own line, but not pip's kinds of errors and its summary."""


class BuildError(Exception):
    """A revision that pip can't build; the message is one line."""


@dataclass(frozen=True)
class Files:
    """What a side is imported from.

    Attributes
    ----------
    tree : Path
        The top of its source tree.
    site : Path or None
        Where pip has installed it; None where there is nothing to install.
    wrong : str
        Why it could not be built; empty where it could, or need not be.
    """

    tree: Path
    site: Path | None = None
    wrong: str = ""


def install(tree: Tree, inside: Path, cache: Path) -> Files:
    """Let pip build and install a revision, unless it has before.

    Parameters
    ----------
    tree : Tree
        A checkout.
    inside : Path
        Where in it the user stands; the nearest project from there upwards is the one.
    cache : Path
        What is of a commit is kept here; what isn't committed goes with the checkout.

    Returns
    -------
    Files
        Without a site where the tree has no project, or where it can't be built.
    """
    project = find_project(tree.folder, inside)
    if project is None:
        return Files(tree.folder)
    assert tree.scratch is not None
    built = tree.scratch / _SITE
    if tree.dirty:
        return _built(tree.folder, project, built)
    kept = cache / _key(tree.commit, project.relative_to(tree.folder))
    if not kept.is_dir():
        found = _built(tree.folder, project, built)
        if found.site is None:
            return found
        _forget_old(cache, tree.scratch)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # a gate beside this one has built the same
            built.rename(kept)
    os.utime(kept)
    return Files(tree.folder, kept)


def find_project(top: Path, inside: Path) -> Path | None:
    """Find the folder that pip can build, from where the user stands up to the top.

    Parameters
    ----------
    top, inside : Path
        A tree, and a folder relative to it.

    Returns
    -------
    Path or None
        A pyproject.toml that only configures tools makes no project.
    """
    here = top / inside
    for folder in (here, *here.parents):
        if (folder / "setup.py").is_file() or _pyproject(folder).keys() & {
            "project",
            "build-system",
        }:
            return folder
        if folder == top:
            break
    return None


def _pyproject(folder: Path) -> dict[str, Any]:
    """Read pyproject.toml; one that can't be read is for pip to complain of."""
    try:
        return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError:
        return {"build-system": {}}


def requirements_met(requires: Sequence[str]) -> bool:
    """Tell whether what a build needs is installed here, so that it needs no environment.

    Parameters
    ----------
    requires : sequence of str
        As ``build-system.requires``.

    Returns
    -------
    bool
    """
    if "setuptools" in {re.split(r"\W", line, maxsplit=1)[0] for line in requires} and _has(
        _OLD_SETUPTOOLS
    ):
        requires = [*requires, "wheel"]
    return all(_has(line) for line in requires)


def _has(line: str) -> bool:
    try:
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate():
            return True
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except (InvalidRequirement, metadata.PackageNotFoundError):
        return False


def _built(tree: Path, project: Path, site: Path) -> Files:
    try:
        build(project, site)
    except BuildError as error:
        shutil.rmtree(site, ignore_errors=True)
        return Files(tree, None, str(error))
    return Files(tree, site)


def build(project: Path, site: Path) -> None:
    """Build a project and install it into a folder, without what it depends on.

    What the build needs is taken from this environment where it is all there (so that an extension
    is compiled against the torch that will run it), and fetched by pip otherwise.

    Parameters
    ----------
    project : Path
    site : Path
        Made by pip.

    Raises
    ------
    BuildError
    """
    system = _pyproject(project).get("build-system", {})
    here = ["--no-build-isolation"] * requirements_met(system.get("requires", ["setuptools"]))
    command = [
        sys.executable, "-P", "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", *here,
        "--no-warn-script-location", "--target", str(site), str(project),
    ]  # fmt: skip
    code, said = _run(command, project)
    if code != 0:
        raise BuildError(complaint(said))
    if not site.is_dir():
        raise BuildError("pip has installed nothing")


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    """Run pip in a process group of its own, which ends with this call whatever happens."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment | _QUIET,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate()
    except BaseException:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process.returncode, said


def complaint(said: str) -> str:
    """Find the line of pip's output that says what was wrong."""
    lines = [line.strip(" \t│╰─>") for line in said.splitlines()]
    for pattern in (_RAISED, _COMPLAINED):
        found = [line for line in lines if pattern.match(line)]
        if found:
            return found[-1][:300]
    return next((line[:300] for line in reversed(lines) if line), "pip failed without a word")


def _key(commit: str, project: Path) -> str:
    """Name what the result of a build depends on."""
    here = (sys.prefix, sys.version, sysconfig.get_platform(), metadata.version("torch"))
    parts = (commit, str(project), *here)
    return sha256("\0".join(parts).encode()).hexdigest()[:20]


def _forget_old(cache: Path, scratch: Path) -> None:
    """Take away what no gate has used for long; by way of a folder that goes with the checkout."""
    oldest = time.time() - KEPT_DAYS * 86_400
    for path in cache.glob("*"):
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.rename(scratch / f"old-{path.name}")
