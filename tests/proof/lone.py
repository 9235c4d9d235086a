"""Which clause is the only one that catches a planted bug: what would be missed without it.

Run as ``python -m embconform.proof.lone run`` and then ``... render``.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import click

from embconform.conformance.render.files import write_whole
from embconform.mutants.registry import by_name
from embconform.proof.hunt import PROGRAMS, Hunt
from embconform.proof.log import Log, go_on
from embconform.proof.tasks import HuntTask
from embconform.reference.clause import spoken_of

NEVER_ALONE: Mapping[str, str] = {
    "max-norm.epsilon": "a row in which the 1e-7 shows is a scaled row like any other, and "
    "max-norm.value, or the clause of its option or layout, compares it within the same bound",
    "training.loss-falls": "the oracle's losses fall, so a table whose losses don't is not the "
    "oracle's, and training.skip-gram compares the two",
    "gradient.hot-rows": "thousands of equal indices are many indices, and gradient.many-indices "
    "compares the same gradient",
}
"""Clauses that no bug can break alone, and why."""


def task(name: str, profile: str) -> HuntTask:
    """Make the task that proves a bug to be caught by one clause alone, or shows a second one."""
    return HuntTask(name, profile, 0, ("quick", PROGRAMS, "default"), "second")


def plan(targets: str = "*") -> list[HuntTask]:
    """List the runs: the first bug of each clause, then the second of each, and so on.

    Parameters
    ----------
    targets : str
        Patterns of names or of clause ids, joined by commas.
    """
    patterns = [part.strip() for part in targets.split(",")]
    ranks: Counter[str] = Counter()
    found: list[tuple[int, HuntTask]] = []
    for bug in sorted(by_name().values(), key=lambda bug: ".lone_" not in bug.module):
        ranks[bug.clause] += 1
        if any(fnmatchcase(name, part) for name in (bug.name, bug.clause) for part in patterns):
            found.append((ranks[bug.clause], task(bug.name, bug.profile)))
    return [wished for _, wished in sorted(found, key=lambda pair: pair[0])]


def missing(log: Log, wished: Iterable[HuntTask]) -> list[HuntTask]:
    """List the first run that was not done for each clause that nothing shows to be alone yet."""
    shown = {clause for clause, bugs in alone(list(log.hunts.values())).items() if bugs}
    found: dict[str, HuntTask] = {}
    for one in wished:
        clause = by_name()[one.name, one.profile].clause
        if clause not in shown and clause not in NEVER_ALONE and not log.has(one):
            found.setdefault(clause, one)
    return list(found.values())


def alone(hunts: list[Hunt]) -> dict[str, list[Hunt]]:
    """List, by clause, the bugs that it alone catches.

    Parameters
    ----------
    hunts : list of Hunt
        Run to the end of the budget, or to the second clause.
    """
    found: dict[str, list[Hunt]] = {clause: [] for clause in spoken_of("cpu")}
    for hunt in hunts:
        if len(hunt.catches) == 1:
            found[hunt.catches[0].clause].append(hunt)
    return found


@click.group()
def main() -> None:
    """Find out which clauses are the only ones to catch a planted bug."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("lone.jsonl"),
              show_default=True, help="Appended to; what it holds is not run again.")  # fmt: skip
@click.option("--targets", metavar="GLOB", default="*", help="Names or clause ids, by commas.")
@click.option("--missing", "only_missing", is_flag=True,
              help="Only what may show a clause alone that nothing does yet.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True)
def run(*, out: Path, targets: str, only_missing: bool, workers: int) -> None:
    """Run every bug that is not in the file yet; stop it at any time and call it again."""
    wished = plan(targets)
    if not wished:
        raise click.UsageError(f"--targets {targets!r} matches no planted bug")
    code = 0
    while only_missing and not code and (following := missing(Log.read(out), wished)):
        code = go_on("embconform.proof.lone", following, out, workers)
    sys.exit(code if only_missing else go_on("embconform.proof.lone", wished, out, workers))


@main.command()
@click.option("--out", type=click.Path(path_type=Path, exists=True), default=Path("lone.jsonl"),
              show_default=True)  # fmt: skip
@click.argument("page", type=click.Path(path_type=Path))
def render(out: Path, page: Path) -> None:
    """Write PAGE, Markdown, from what was found."""
    write_whole(page, "\n".join(page_of(Log.read(out))) + "\n")


def page_of(log: Log) -> Iterator[str]:
    """Write the page, line by line."""
    hunts = [hunt for (name, profile, _), hunt in log.hunts.items() if (name, profile) in by_name()]
    found = alone(hunts)
    owners = sum(bool(bugs) for bugs in found.values())
    yield from (
        "# What each clause alone catches",
        "",
        f"{len(hunts)} of {len(by_name())} planted bugs were run so far, by all clauses of the "
        "quick budget, until a",
        "second one broke or the budget ended; those that it doesn't catch go on with the probes",
        "that the quick budget lacks, of programs compiled twice and exported, and then with",
        "the rest of the default budget. A bug in this table would survive without the clause",
        "beside it.",
        "",
        "<!-- not run: takes hours -->",
        "```bash",
        *log.commands(),
        "python -m embconform.proof.lone render docs/kill-table.md",
        "```",
        "",
        *log.provenance(),
        "",
        f"- {owners} of {len(found)} clauses are the only ones to catch a planted bug",
        f"- {sum(len(bugs) for bugs in found.values())} of {len(hunts)} bugs are caught by one "
        "clause alone",
        f"- {sum(not hunt.caught for hunt in hunts)} bugs are not caught",
        "",
        "| clause | bugs that it alone catches |",
        "|---|---|",
    )
    for clause, bugs in found.items():
        why = NEVER_ALONE.get(clause, "not shown yet")
        names = ", ".join(bug.name for bug in bugs)
        yield f"| {clause} | {names or f'none: {why}'} |"


if __name__ == "__main__":
    main()
