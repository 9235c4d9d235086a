"""How small the cases are that a report shows, and how soon a run finds the first failure.

Run as ``python -m embconform.proof.minimal PAGE``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from subprocess import DEVNULL, Popen
from time import perf_counter

import click

from embconform.backends.adapt import as_backend
from embconform.conformance.environment import environment
from embconform.conformance.options import RunOptions
from embconform.conformance.render.files import write_whole
from embconform.conformance.running.explorer import Explorer
from embconform.conformance.running.in_process import InProcess
from embconform.conformance.running.part import Part
from embconform.conformance.running.tally import Broken
from embconform.mutants.registry import Planted, by_name
from embconform.proof.log import commit
from embconform.reference.clause import Level, Profile, registry


@dataclass(frozen=True)
class Smallest:
    """The case that a report shows of the first clause that a planted bug breaks.

    Attributes
    ----------
    bug : Planted
    clause : str
        Empty where the quick budget breaks none.
    indices, rows : int or None
        Of its largest call, and of its table; None where a probe found it.
    """

    bug: Planted
    clause: str = ""
    indices: int | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Soonest:
    """How long a whole process took until it told of the first failure.

    Attributes
    ----------
    bug : Planted
    wall, cpu : float
        Seconds; `cpu` is user and system time of the process and those that it waited for.
    """

    bug: Planted
    wall: float
    cpu: float


def smallest(bug: Planted, seed: int = 0) -> Smallest:
    """Run a planted bug to its first failure and shrink that, as ``--fail-fast`` does."""
    strict = registry()[bug.clause].level is Level.SHOULD
    runner = InProcess(as_backend(bug.where, bug.target))
    runner.prepare()
    options = RunOptions(Profile(bug.profile), "quick", seed=seed, strict=strict)
    explorer, seen = Explorer(runner, options), Part()
    for number in range(len(explorer.work)):
        seen.merge(explorer.do(number) or Part())
        for clause in seen.counting(explorer.clauses, (), strict=strict):
            tally = seen.tallies[clause]
            start = tally.smallest
            assert isinstance(start, Broken)
            if start.case is None or start.structure is None:
                return Smallest(bug, clause)
            tally.shrunk = explorer.shrink(clause, start.structure)
            shown = tally.shown(shrunk=True)
            assert isinstance(shown, Broken)
            assert shown.case is not None
            return Smallest(bug, clause, shown.case.most_indices, shown.case.rows)
    return Smallest(bug)


def soonest(bug: Planted, seed: int = 0) -> Soonest:
    """Time ``embconform validate --fail-fast`` of a planted bug as a process of its own."""
    call = [sys.executable, "-m", "embconform", "validate", bug.where, "--profile", bug.profile]
    call += [
        "--budget",
        "quick",
        "--seed",
        str(seed),
        "--fail-fast",
        "--strict",
        "--database",
        "none",
    ]
    started = perf_counter()
    with Popen(call, stdout=DEVNULL, stderr=DEVNULL) as process:
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return Soonest(bug, perf_counter() - started, used.ru_utime + used.ru_stime)


@click.command()
@click.argument("page", type=click.Path(path_type=Path))
@click.option("--every", type=click.IntRange(1), default=1, show_default=True,
              help="Only each of so many planted bugs.")  # fmt: skip
@click.option("--timed", type=click.IntRange(1), default=10, show_default=True,
              help="Of these, time each of so many.")  # fmt: skip
def main(*, page: Path, every: int, timed: int) -> None:
    """Write PAGE, Markdown: the sizes of smallest cases, and the times to the first failure."""
    import torch

    torch.set_num_threads(1)
    bugs = list(by_name().values())[::every]
    cases = [smallest(bug) for bug in bugs]
    times = [soonest(bug) for bug in bugs[::timed]]
    command = f"python -m embconform.proof.minimal {page} --every {every} --timed {timed}"
    write_whole(page, "\n".join(page_of(command, cases, times)) + "\n")


def page_of(command: str, cases: Sequence[Smallest], times: Sequence[Soonest]) -> Iterator[str]:
    """Write the page, line by line."""
    drawn = [one for one in cases if one.indices is not None and one.rows is not None]
    yield from ("# How small failing cases are, and how soon the first shows", "")
    yield from (
        "<!-- not run: takes minutes -->",
        "```bash",
        command,
        "```",
        "",
        f"- commit: {commit()}",
    )
    known = environment("cpu")
    yield from (f"- {name}: {known[name]}" for name in ("torch", "python", "system"))
    yield f"- load: {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors"
    yield from (
        "",
        f"{len(cases)} planted bugs, quick budget, seed 0, to the first failure, shrunk:",
    )
    yield ""
    missed = sum(not one.clause for one in cases)
    probed = sum(bool(one.clause) and one.indices is None for one in cases)
    yield f"- {missed} are missed by the quick budget, {probed} found by a probe, which has no case"
    if drawn:
        ids, rows = ([getattr(one, name) for one in drawn] for name in ("indices", "rows"))
        yield f"- the median case of the other {len(drawn)} has {median(ids):g} indices and"
        yield f"  {median(rows):g} rows; {sum(n <= 4 for n in ids)} have at most 4 indices and"
        yield f"  {sum(n <= 4 for n in rows)} at most 4 rows"
    if times:
        wall, cpu = (median(getattr(one, name) for one in times) for name in ("wall", "cpu"))
        yield f"- the median of {len(times)} whole processes told of the first failure after"
        yield f"  {wall:.1f} s, {cpu:.1f} s of them CPU time, torch's import included"
    yield from ("", "| bug | profile | first broken | indices | rows |", "|---|---|---|---|---|")
    for one in cases:
        sizes = f"{'' if one.indices is None else one.indices} | "
        sizes += f"{'' if one.rows is None else one.rows}"
        yield f"| {one.bug.name} | {one.bug.profile} | {one.clause or 'none'} | {sizes} |"


if __name__ == "__main__":
    main()
