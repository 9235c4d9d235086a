"""How often the gate raises a false alarm, and what it finds, over whole runs on a busy machine.

Run as ``python -m embconform.performance.gate.rates run`` again and again, and then ``... render``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import click

from embconform.performance.gate.benchmarks import Benchmark
from embconform.performance.gate.calibration import most, trial
from embconform.performance.gate.installed import install
from embconform.performance.gate.messages import Hello
from embconform.performance.gate.revisions import RevisionError, copied, find_head
from embconform.performance.gate.setup import Place, Ready, get_ready
from embconform.performance.machine import machine
from embconform.performance.passes import PASSES
from embconform.performance.workloads import find

LEVELS: Final = (0.05, 0.1)
BENCHMARKS: Final = (
    ("gpt2-token-zipf-float32", "forward"),
    ("gpt2-token-zipf-float32", "sparse"),
    ("llama3-token-zipf-bfloat16", "forward"),
    ("movielens-items-batch-zipf-float32", "forward"),
    ("movielens-items-batch-zipf-float32", "backward"),
    ("movielens-users-batch-uniform-float32", "forward"),
    ("dlrm-1m-batch-zipf-float16", "forward"),
    ("bert-batch-zipf-float32", "forward"),
    ("bert-batch-zipf-bfloat16", "forward"),
    ("bert-batch-zipf-pad90-float32", "forward"),
)
"""The default ones and four more: ten, the most that a gate takes."""
SLICE: Final = 0.05
"""Seconds for which the other process is busy, and then idle."""
TARGET: Final = """from torch.nn.functional import embedding


def looks_up(input, weight, padding_idx=None, max_norm=None, norm_type=2.0,
             scale_grad_by_freq=False, sparse=False):
    return embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
"""


def _keep_half_busy() -> None:
    while os.getppid() != 1:
        until = time.monotonic() + SLICE
        while time.monotonic() < until:
            pass
        time.sleep(SLICE)


@contextmanager
def _half_busy(load: bool) -> Iterator[None]:
    """Keep another process busy half of the time, as long as this lasts."""
    if not load:
        yield
        return
    process = get_context("spawn").Process(target=_keep_half_busy, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


@contextmanager
def _ready() -> Iterator[Ready]:
    """Make a repository of a target that is a file, and get ready to compare it with itself."""
    benchmarks = [Benchmark(find(name)[0], PASSES[chosen]) for name, chosen in BENCHMARKS]
    with TemporaryDirectory() as folder:
        top, cache = Path(folder, "user").resolve(), Path(folder, "cache")
        top.mkdir()
        (top / "target.py").write_text(TARGET, encoding="utf-8")
        name = ("-c", "user.name=nobody", "-c", "user.email=nobody@invalid")
        for arguments in (("init", "-q"), ("add", "."), (*name, "commit", "-qm", "A target")):
            subprocess.run(["git", *arguments], check=True, stdin=subprocess.DEVNULL, cwd=top)
        with chdir(top), copied(find_head(top, allow_dirty=False), cache) as copy:
            place, hello = Place(top), Hello(tuple(filter(None, sys.path)), 1, 0)
            now = install(copy, place.inside, cache / "installed")
            yield get_ready("target:looks_up", now, now, place, hello, wanted=benchmarks)


@click.group()
def main() -> None:
    """Find out how often the gate is wrong on this machine."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("gate-rates.jsonl"),
              show_default=True, help="Appended to.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(0), default=60, show_default=True,
              help="No trial begins after that.")  # fmt: skip
@click.option("--load/--no-load", default=True, show_default=True,
              help="Keep another process busy half of the time.")  # fmt: skip
def run(*, out: Path, minutes: float, load: bool) -> None:
    """Make whole runs: head against head, and with one of the ten benchmarks slowed down."""
    out = out.resolve()
    number = len(read(out)) if out.exists() else 0
    told = {"commit": _commit(), "half_busy": load, **machine("cpu", 1)}
    with _half_busy(load), _ready() as ready:
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            line = json.dumps(told | _tried(ready, number))
            with out.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
            number += 1


def _commit() -> str:
    """Name the commit of the checkout that this file lies in, or ``unknown``."""
    try:
        own = find_head(Path(__file__).parent, allow_dirty=True)
    except RevisionError:
        return "unknown"
    return f"{own.commit[:7]}{'-dirty' * own.dirty}"


def _tried(ready: Ready, number: int) -> dict[str, Any]:
    """Make one run of head against head, and one at each slowdown of a benchmark, in turns."""

    def tick(said: str) -> None:
        click.echo(f"trial {number + 1}, {said}", err=True)

    one = trial(ready, number, tick, levels=LEVELS)
    against, which = asdict(one.against_itself()), number % one.count
    found = {str(level): one.run_with(level, which) for level in LEVELS}
    return {"number": number, "slowed": ready.benchmarks[which].name, **against, "found": found}


def read(path: Path) -> list[dict[str, Any]]:
    """Read the trials of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@main.command()
@click.option("--out", type=click.Path(path_type=Path, exists=True),
              default=Path("gate-rates.jsonl"), show_default=True)  # fmt: skip
def render(out: Path) -> None:
    """Print a table for docs/gate.md."""
    for line in table(read(out)):
        click.echo(line)


def table(trials: list[dict[str, Any]]) -> Iterator[str]:
    """Write the table, line by line.

    Parameters
    ----------
    trials : list of dict
        At least one.
    """
    count = len(trials)
    alarms, void, open_ = (sum(t[key] for t in trials) for key in ("alarm", "void", "undecided"))
    yield "| head | runs | regression | fine | inconclusive | void | seconds, median |"
    yield "|---|---|---|---|---|---|---|"
    fine = count - alarms - void - open_
    seconds = f"{median(t['seconds'] for t in trials):.0f}"
    yield f"| the same | {count} | {alarms} | {fine} | {open_} | {void} | {seconds} |"
    for level in LEVELS:
        said = Counter(t["found"][str(level)] for t in trials)
        told = " | ".join(str(said[call]) for call in ("slower", "fine", "open", "void"))
        yield f"| +{level:.0%} in one of ten benchmarks | {count} | {told} | |"
    yield ""
    yield f"With 95% confidence at most {most(alarms, count):.1%} of runs are false alarms."


if __name__ == "__main__":
    main()
