"""Which part of a run's time goes where: the target, the oracle, and what the suite itself takes.

Run as ``python -m embconform.proof.share [TARGET] [--budget NAME]``.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from types import FrameType
from typing import Final

import click

from embconform.backends.targets import resolve
from embconform.conformance.options import BUDGETS, RunOptions
from embconform.conformance.running.engine import run

INTERVAL: Final = 0.001
"""Processor seconds between two looks; as many as the system's clock allows."""
PARTS: Final = {
    "torch": "target",
    "reference": "oracle",
    "judges": "judging",
    "judging": "judging",
    "finding": "judging",
    "views": "judging",
    "claims": "judging",
    "recording": "observing",
    "observe": "observing",
    "layouts": "observing",
    "in_process": "observing",
    "hypothesis": "drawing",
    "draws": "drawing",
    "driver": "drawing",
    "strata": "drawing",
    "fills": "drawing",
    "patterns": "drawing",
    "programs": "drawing",
}
"""What a frame is part of, by a folder or the file that its code is in."""


@contextmanager
def sampled() -> Iterator[Counter[str]]:
    """Look again and again at what is running, as processor time goes by.

    Yields
    ------
    Counter of str
        Looks, by part; the innermost frame that is part of something counts.
    """
    looks: Counter[str] = Counter()

    def look(number: int, frame: FrameType | None) -> None:
        del number
        looks[_part(frame)] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    try:
        yield looks
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _part(frame: FrameType | None) -> str:
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        for name in (path.stem, *reversed(path.parts[:-1])):
            if name in PARTS:
                return PARTS[name]
            if name in ("conformance", "site-packages"):
                break
        frame = frame.f_back
    return "the rest"


@click.command()
@click.argument("target", default="eager")
@click.option("--budget", type=click.Choice(list(BUDGETS)), default="default", show_default=True)
def main(*, target: str, budget: str) -> None:
    """Print the shares of a run of TARGET in this process."""
    backend = resolve(target)
    options = RunOptions(backend.profiles[0], budget)
    started = process_time()
    with sampled() as looks:
        report = run(backend, options, target=target)
    total = looks.total()
    click.echo(f"{report.cases:,} cases, {process_time() - started:.1f} s of processor time")
    for part, count in looks.most_common():
        click.echo(f"{count / total:6.1%}  {part}")
    own = 1 - (looks["target"] + looks["oracle"]) / total
    click.echo(f"{own:6.1%}  the suite's own: all but the target and the oracle")


if __name__ == "__main__":
    main()
