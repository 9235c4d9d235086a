"""Measure this project's history and make asv's site of it, in one command.

From the first tagged commit on, or from the first one that has benchmarks where nothing is tagged::

    python -m benchmarks.site --steps 20

What was measured before is not measured again, so the same command brings the site up to date.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGINS = "benchmarks/speed.py"
UNUSABLE = 1
"""asv's exit code where nothing could be measured; 2 is that of a benchmark that failed."""


class SiteError(Exception):
    """A site that can't be made; one line."""


def git(*arguments, root=ROOT):
    """Give what git prints.

    Raises
    ------
    SiteError
        With git's own line.
    """
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip() or f"nothing is named {arguments[-1]}"
        raise SiteError(f"git {arguments[0]}: {said.splitlines()[0]}")
    return done.stdout.split()


def commits(since=None, root=ROOT):
    """Give the range of commits that the site shows, as asv and git name it.

    Parameters
    ----------
    since : str, optional
        The first commit, itself included.
    root : Path

    Returns
    -------
    str

    Raises
    ------
    SiteError
        If git doesn't know that commit, or HEAD does not follow it.
    """
    first = since or next(iter(tagged(root) or with_benchmarks(root)), None)
    if first is None:
        raise SiteError(f"HEAD has no tag before it and no {BEGINS}: name a commit by --since")
    (first,) = git("rev-parse", "--verify", "--quiet", f"{first}^{{commit}}", root=root)
    if first not in git("rev-list", "HEAD", root=root):
        raise SiteError(f"{since or first} is no commit that leads to HEAD")
    (_, *parents) = git("rev-list", "--parents", "-n1", first, root=root)
    return f"{parents[0]}..HEAD" if parents else "HEAD"


def tagged(root=ROOT):
    """Name the tags that lead to HEAD, oldest first."""
    return git("tag", "--merged", "HEAD", "--sort=creatordate", root=root)


def with_benchmarks(root=ROOT):
    """Name the commits that changed the benchmarks, oldest first."""
    return git("log", "--reverse", "--format=%H", "--", BEGINS, root=root)


def asv(*arguments):
    """Run asv, which asks nothing."""
    command = [sys.executable, "-m", "asv", *arguments]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.site", description=__doc__)
    parser.add_argument("--since", help="the first commit (default: the first tagged one)")
    parser.add_argument(
        "--steps", type=int, default=20, help="commits at most, evenly spread (default: 20)"
    )
    given = parser.parse_args(arguments)
    try:
        chosen = commits(given.since)
    except SiteError as error:
        sys.stderr.write(f"site: {error}\n")
        return 2
    asv("machine", "--yes")
    measured = asv("run", "--skip-existing-successful", "--steps", str(given.steps), chosen)
    return measured if measured == UNUSABLE else asv("publish", chosen)


if __name__ == "__main__":
    sys.exit(main())
