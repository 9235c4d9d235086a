"""How surely each planted bug is found, and that no right embedding is refused, over many seeds.

Run as ``python -m embconform.proof.discovery run`` and then ``... render``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median

import click

from embconform.conformance.render.files import write_whole
from embconform.mutants.registry import Planted, by_name
from embconform.proof.hunt import Hunt
from embconform.proof.log import Log, go_on
from embconform.proof.right import Acceptance, right
from embconform.proof.tasks import HuntTask, RightTask, Task

RIGHT_SEEDS = {"quick": 50, "default": 5}
"""Over how many seeds each right embedding is run, by budget."""


def plan(seeds: int, targets: str, right_seeds: dict[str, int]) -> list[Task]:
    """List the runs, seed by seed, so that a run which is stopped has seen every target.

    Parameters
    ----------
    seeds : int
        How many seeds each planted bug is run with, from 0 on.
    targets : str
        Patterns of names or of clause ids, joined by commas.
    right_seeds : dict of str to int
        How many seeds each right embedding is run with, by budget.
    """
    patterns = [part.strip() for part in targets.split(",")]

    def wanted(*names: str) -> bool:
        return any(fnmatchcase(name, part) for name in names for part in patterns)

    bugs = [bug for bug in by_name().values() if wanted(bug.name, bug.clause)]
    rights = [name for name in right() if wanted(name)]
    found: list[Task] = []
    for seed in range(max(seeds, *right_seeds.values())):
        for budget, most in right_seeds.items():
            found += [RightTask(name, seed, budget) for name in rights if seed < most]
        if seed < seeds:
            found += [_any_catch(bug, seed) for bug in bugs]
    return found


def _any_catch(bug: Planted, seed: int) -> HuntTask:
    return HuntTask(bug.name, bug.profile, seed, ("default",), "any", aimed=True)


@click.group()
def main() -> None:
    """Find out how surely the planted bugs are found, over many seeds."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("discovery.jsonl"),
              show_default=True, help="Appended to; what it holds is not run again.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(0), default=20, show_default=True)
@click.option("--targets", metavar="GLOB", default="*", help="Names or clause ids, by commas.")
@click.option("--quick-seeds", type=click.IntRange(0), default=RIGHT_SEEDS["quick"],
              show_default=True, help="Seeds of right embeddings, quick budget.")  # fmt: skip
@click.option("--default-seeds", type=click.IntRange(0), default=RIGHT_SEEDS["default"],
              show_default=True, help="The same, default budget.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True)
def run(
    *, out: Path, seeds: int, targets: str, quick_seeds: int, default_seeds: int, workers: int
) -> None:
    """Run everything that is not in the file yet; stop it at any time and call it again."""
    wished = plan(seeds, targets, {"quick": quick_seeds, "default": default_seeds})
    if not wished:
        raise click.UsageError(f"--targets {targets!r} matches no planted bug or right embedding")
    sys.exit(go_on("embconform.proof.discovery", wished, out, workers))


@main.command()
@click.option("--out", type=click.Path(path_type=Path, exists=True),
              default=Path("discovery.jsonl"), show_default=True)  # fmt: skip
@click.argument("page", type=click.Path(path_type=Path))
def render(out: Path, page: Path) -> None:
    """Write PAGE, Markdown, from what was found."""
    write_whole(page, "\n".join(page_of(Log.read(out))) + "\n")


@dataclass(frozen=True)
class Line:
    """A planted bug over all its seeds."""

    name: str
    profile: str
    clause: str
    caught: int
    seeds: int
    cases: float
    seconds: float


def lines(log: Log) -> list[Line]:
    """Sum up each bug, in the order in which they are planted; unknown names are left out."""
    by_bug: dict[tuple[str, str], list[Hunt]] = {key: [] for key in by_name()}
    for (name, profile, _), hunt in log.hunts.items():
        by_bug.get((name, profile), []).append(hunt)
    return [
        Line(
            name,
            profile,
            hunts[0].clause,
            sum(hunt.caught for hunt in hunts),
            len(hunts),
            median(hunt.cases for hunt in hunts),
            median(hunt.seconds for hunt in hunts),
        )
        for (name, profile), hunts in by_bug.items()
        if hunts
    ]


def page_of(log: Log) -> Iterator[str]:
    """Write the page, line by line."""
    yield from _head(log)
    yield from _summary(lines(log), list(log.acceptances.values()))
    yield from ("", "## Every planted bug", "")
    yield "| bug | profile | planted for | caught | median cases | median seconds |"
    yield "|---|---|---|---|---|---|"
    for line in sorted(lines(log), key=lambda line: (line.caught / line.seeds, line.clause)):
        yield (
            f"| {line.name} | {line.profile} | {line.clause} | {line.caught}/{line.seeds} "
            f"| {line.cases:g} | {line.seconds:.2f} |"
        )


def _head(log: Log) -> Iterator[str]:
    yield from (
        "# How surely bugs are found",
        "",
        "Every planted bug is run with many seeds at the default budget, until the first clause",
        "breaks that counts: first the cases that rule on the clause it was planted for, so that",
        "hours are enough, then all others. Every right embedding is run with many seeds to the",
        "end. Every run is in docs/data/proof/discovery.jsonl.xz.",
        "",
        "<!-- not run: takes hours -->",
        "```bash",
        *log.commands(),
        "python -m embconform.proof.discovery render docs/discovery.md",
        "```",
        "",
    )
    yield from log.provenance()
    yield ""


def _summary(bugs: Sequence[Line], rights: Sequence[Acceptance]) -> Iterator[str]:
    runs, caught = sum(line.seeds for line in bugs), sum(line.caught for line in bugs)
    always = sum(line.caught == line.seeds for line in bugs)
    yield f"- {len(bugs)} planted bugs, {runs:,} runs: {caught:,} caught"
    yield f"- {always} of {len(bugs)} bugs are caught with every seed"
    if bugs:
        yield (
            f"- the median bug is caught after {median(line.cases for line in bugs):g} cases and "
            f"{median(line.seconds for line in bugs):.2f} s, imports excluded"
        )
    for budget in RIGHT_SEEDS:
        done = [one for one in rights if one.budget == budget]
        if not done:
            yield f"- no right embedding was run at the {budget} budget"
            continue
        wrong = [one for one in done if not one.accepted]
        names = len({one.name for one in done})
        yield (
            f"- {names} right embeddings at the {budget} budget, {len(done):,} runs: "
            f"{len(wrong)} false alarms"
        )
        for one in wrong:
            yield f"  - {one.name}, seed {one.seed}: {', '.join(one.refused)}"


if __name__ == "__main__":
    main()
