"""A user's git repository with a package in it, made for a test, and a copy of this one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

PLAIN = """
from torch.nn.functional import embedding


def my_embedding(input, weight, padding_idx=None, sparse=False):
    return embedding(input, weight, padding_idx, sparse=sparse)
"""
TIDIED = '''
"""Embeddings of ours."""

from torch.nn.functional import embedding as look_up


def my_embedding(input, weight, padding_idx=None, sparse=False):
    """Look rows up."""
    rows = look_up(input, weight, padding_idx, sparse=sparse)
    return rows
'''
SLOWER = """
from torch.nn.functional import embedding


def my_embedding(input, weight, padding_idx=None, sparse=False):
    if input.ndim == 1 and len(input) > 1000:
        embedding(input[: len(input) // 10], weight)
    return embedding(input, weight, padding_idx, sparse=sparse)
"""
WRONG = """
from torch.nn.functional import embedding


def my_embedding(input, weight, padding_idx=None, sparse=False):
    return embedding(input, weight, padding_idx or None, sparse=sparse)
"""
BROKEN = "import no_such_module\n" + PLAIN
GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


class Repository:
    """A git repository whose package ``my_pkg`` lies under `source`."""

    def __init__(self, top: Path, source: str = "") -> None:
        self.top = top
        self.package = top / source / "my_pkg"
        self.package.mkdir(parents=True)
        self.git("init", "-q", "-b", "main", ".")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.top, env=os.environ | GIT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def write(self, code: str, name: str = "__init__.py") -> None:
        (self.package / name).write_text(code)

    def commit(self, code: str) -> str:
        """Commit a package's code, and give the commit."""
        self.write(code)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "a step")
        return self.git("rev-parse", "HEAD")

    @property
    def worktrees(self) -> int:
        """How many worktrees git knows, the user's own included."""
        return self.git("worktree", "list", "--porcelain").count("worktree ")


def tracked() -> list[str]:
    """List the files of this repository that git has or would have."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [name for name in listed.splitlines() if (ROOT / name).exists()]


def copy_repository(folder: Path) -> None:
    """Copy those files."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
