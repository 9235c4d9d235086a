"""Base and head of the user's repository, each as a folder of files."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

_LOCK: Final = ".lock"
_TREE: Final = "tree"
_SHORT: Final = 9
_NO_HOOKS: Final = ("-c", "core.hooksPath=/dev/null")
"""A checkout of the gate's is none of the user's post-checkout hook's business."""


class RevisionError(Exception):
    """A revision or a repository that can't be used; the message is one line for the user."""


@dataclass(frozen=True)
class Tree:
    """The files of a revision.

    Attributes
    ----------
    name : str
        As the user named it.
    commit : str
        40 hexadecimal digits.
    folder : Path
        Where the files are: the top of the user's working tree, or of a checkout.
    dirty : bool
        Whether they differ from the commit.
    scratch : Path or None
        A folder that goes when the checkout goes; None for the user's own working tree.
    """

    name: str
    commit: str
    folder: Path
    dirty: bool = False
    scratch: Path | None = None

    @property
    def said(self) -> str:
        """For people: the name, and the beginning of the commit."""
        short = self.commit[:_SHORT]
        changed = " with uncommitted changes" if self.dirty else ""
        return (short if self.commit.startswith(self.name) else f"{self.name} ({short})") + changed


def find_head(folder: Path, *, allow_dirty: bool) -> Tree:
    """Take the repository around a folder as it is.

    Parameters
    ----------
    folder : Path
    allow_dirty : bool
        Whether changes that are not committed are fine.

    Returns
    -------
    Tree

    Raises
    ------
    RevisionError
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        raise RevisionError(f"{folder} is in no git repository; the gate compares its revisions")
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if commit is None:
        raise RevisionError(f"{top} has no commit yet; the gate compares two")
    changes = (_git(Path(top), "status", "--porcelain") or "").splitlines()
    if changes and not allow_dirty:
        more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
        which = changes[0].split()[-1] + more
        raise RevisionError(
            f"the working tree has changes that are not committed ({which}): "
            "commit them, or add --allow-dirty to judge them as they are"
        )
    return Tree("HEAD", commit, Path(top), bool(changes))


def find_commit(repository: Path, revision: str) -> str:
    """Give the commit that a revision names.

    Raises
    ------
    RevisionError
        If it names none.
    """
    asked = f"{revision}^{{commit}}"
    commit = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", asked)
    if commit is None:
        shallow = _git(repository, "rev-parse", "--is-shallow-repository") == "true"
        hint = "; this clone is shallow: fetch more of its history" if shallow else ""
        raise RevisionError(f"--base {revision!r} names no commit of {repository}{hint}")
    return commit


@contextmanager
def checked_out(repository: Path, revision: str, cache: Path) -> Iterator[Tree]:
    """Check a revision out into a folder of the cache, and take it away afterwards.

    What gates that were killed have left is taken away first: each folder has a lock, which the
    system lets go of when its process ends, however that happens.

    Parameters
    ----------
    repository : Path
        The top of the user's working tree.
    revision : str
    cache : Path
        Made where it isn't there.

    Yields
    ------
    Tree

    Raises
    ------
    RevisionError
        If the revision is unknown or can't be checked out.
    """
    commit = find_commit(repository, revision)
    with _checkout(repository, commit, revision, cache) as folder:
        yield Tree(revision, commit, folder, scratch=folder.parent)


@contextmanager
def copied(head: Tree, cache: Path) -> Iterator[Tree]:
    """Copy the working tree as it is now, so that it may be edited meanwhile.

    Files that git ignores are left out, as they are from a checkout.

    Parameters
    ----------
    head : Tree
        As :func:`find_head` gives it.
    cache : Path

    Yields
    ------
    Tree

    Raises
    ------
    RevisionError
    """
    with _checkout(head.folder, head.commit, head.name, cache) as folder:
        if head.dirty:
            _overlay(head.folder, folder)
        yield replace(head, folder=folder, scratch=folder.parent)


def _overlay(top: Path, folder: Path) -> None:
    """Bring what is not committed into a checkout of the commit."""
    changed = _names(top, "diff", "--name-only", "--no-renames", "-z", "HEAD")
    for name in (*changed, *_names(top, "ls-files", "--others", "--exclude-standard", "-z")):
        there, here = top / name, folder / name
        if here.is_symlink() or here.is_file():
            here.unlink()
        if not there.is_symlink() and (there.is_dir() or not there.exists()):
            continue  # deleted, or a submodule, which a checkout has not either
        if here.is_dir():
            shutil.rmtree(here)
        here.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(there, here, follow_symlinks=False)


def _names(top: Path, *arguments: str) -> list[str]:
    """Call git for names of files, whatever bytes these are of."""
    done = _run(top, *arguments, errors="surrogateescape")
    return [name for name in done.stdout.split("\0") if name]


@contextmanager
def _checkout(repository: Path, commit: str, said: str, cache: Path) -> Iterator[Path]:
    """Check a commit out, under a lock that tells whether the gate still runs."""
    home = cache / sha256(str(repository).encode()).hexdigest()[:12]
    home.mkdir(parents=True, exist_ok=True)
    prune(repository, home)
    name = f"{commit[:12]}-{os.getpid()}-{secrets.token_hex(4)}"
    lock = _locked(home / f"{name}{_LOCK}")
    assert lock is not None
    folder = home / name / _TREE
    try:
        folder.parent.mkdir()
        wrong = _worktree(repository, "add", "--quiet", "--detach", str(folder), commit)
        if wrong:
            raise RevisionError(f"git can't check {said} out: {wrong}")
        yield folder
    finally:
        _remove(repository, folder)
        (home / f"{name}{_LOCK}").unlink(missing_ok=True)
        os.close(lock)


def prune(repository: Path, home: Path) -> int:
    """Take away the folders whose gates have ended, and git's notes of them; give their number."""
    pruned = 0
    for path in sorted(home.glob(f"*{_LOCK}")):
        lock = _locked(path)
        if lock is None:
            continue
        folder = path.with_name(path.name.removesuffix(_LOCK))
        _remove(repository, folder / _TREE)
        if not folder.exists():  # a build that outlives its gate may still be writing
            path.unlink(missing_ok=True)
        os.close(lock)
        pruned += 1
    return pruned


def _locked(path: Path) -> int | None:
    """Lock a file, made where it isn't there; None where another process has it."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(number)
            return None
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(number).st_ino:
                return number
        os.close(number)  # another gate has taken the file away meanwhile


def _remove(repository: Path, folder: Path) -> None:
    """Take a worktree away with all that lies beside it, whatever state it is in."""
    _worktree(repository, "remove", "--force", "--force", str(folder))
    shutil.rmtree(folder.parent, ignore_errors=True)
    # git refuses a half-made one as long as it is there; its prune would take others' notes too
    _worktree(repository, "remove", "--force", "--force", str(folder))


def _worktree(repository: Path, *arguments: str) -> str:
    """Call git worktree; give the last line of what it complained of."""
    done = _run(repository, *_NO_HOOKS, "worktree", *arguments)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["git failed"])[-1]


def _git(folder: Path, *arguments: str) -> str | None:
    """Call git; give what it printed, or None where it failed."""
    done = _run(folder, *arguments)
    return done.stdout.strip("\n") if done.returncode == 0 else None


def _run(
    folder: Path, *arguments: str, errors: str = "replace"
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors=errors,
            check=False,
            env=environment | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except FileNotFoundError as error:
        raise RevisionError("git is not installed; the gate compares revisions with it") from error
