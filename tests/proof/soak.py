"""See whether memory stays flat while a validation goes on and on.

``python -m embconform.proof.soak eager --page docs/soak.md`` runs ``embconform validate``
in rounds and reads the resident memory of its processes meanwhile.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Final

import click
import psutil
from scipy.stats import theilslopes

from embconform.conformance.environment import environment
from embconform.conformance.render.files import write_whole

MIB: Final = 2**20
ROLES: Final = ("judges", "target")
FLAT: Final = 30.0
"""MiB an hour that a process may surely grow by."""
SETTLED: Final = 0.5
"""The share of a run after which caches and allocators are full."""
_SERVER: Final = "fork_server"


@dataclass(frozen=True)
class Sample:
    """Resident memory at a moment.

    Attributes
    ----------
    seconds : float
        Since the start.
    judges, target : float
        MiB of the process that judges, and of the target's; 0 where there is none just then.
    """

    seconds: float
    judges: float
    target: float


@dataclass(frozen=True)
class Growth:
    """How fast a process grows in the settled part of a run, in MiB an hour: Theil and Sen's slope
    and the ends of its 95% interval.
    """

    slope: float
    low: float
    high: float

    @property
    def flat(self) -> bool:
        """Whether it is not surely more than what is allowed."""
        return self.low <= FLAT


def growth(samples: Sequence[Sample], role: str) -> Growth:
    """Fit a line through what a process used in the settled part of a run.

    Parameters
    ----------
    samples : sequence of Sample
    role : str
        ``judges`` or ``target``.

    Returns
    -------
    Growth

    Raises
    ------
    ValueError
        If there are fewer than 8 samples to fit.
    """
    from_ = SETTLED * samples[-1].seconds if samples else 0.0
    points = [(s.seconds / 3600, getattr(s, role)) for s in samples if s.seconds >= from_]
    points = [(hours, used) for hours, used in points if used]
    if len(points) < 8:
        raise ValueError(f"{len(points)} samples of the {role} are too few; run for longer")
    hours, used = zip(*points, strict=True)
    slope, _, low, high = theilslopes(used, hours)
    return Growth(float(slope), float(low), float(high))


def watch(process: subprocess.Popen[str], every: float) -> Iterator[Sample]:
    """Read the memory of a run and of its target until the run ends.

    Parameters
    ----------
    process : subprocess.Popen
        Of ``embconform validate``.
    every : float
        Seconds between samples.

    Yields
    ------
    Sample
    """
    judges, started = psutil.Process(process.pid), time.monotonic()
    while process.poll() is None:
        try:
            used = judges.memory_info().rss / MIB
            yield Sample(time.monotonic() - started, used, _target(judges))
        except psutil.NoSuchProcess:
            return
        time.sleep(every)


def _target(judges: psutil.Process) -> float:
    """Add up what the children of the process that forks targets use."""
    used = 0.0
    for child in judges.children():
        try:
            if any(_SERVER in word for word in child.cmdline()):
                used += sum(each.memory_info().rss for each in child.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
    return used / MIB


@click.command()
@click.argument("target", default="eager")
@click.option("--minutes", type=click.FloatRange(0.1, 1440), default=20, show_default=True)
@click.option("--every", type=click.FloatRange(0.1, 600), default=5.0, show_default=True,
              help="Seconds between samples.")  # fmt: skip
@click.option("--budget", default="default", show_default=True, help="As embconform validate.")
@click.option("--page", type=click.Path(path_type=Path), help="Write Markdown here.")
def main(target: str, *, minutes: float, every: float, budget: str, page: Path | None) -> None:
    """Soak a validation; exit 1 where memory surely grows or the target is found at fault."""
    call = ["validate", target, "--for", f"{60 * minutes:.0f}s", "--database", "none"]
    call += ["--budget", budget] if budget != "default" else []
    with TemporaryFile("w+", encoding="utf-8") as report:
        process = subprocess.Popen(
            [sys.executable, "-m", "embconform", *call],
            stdout=report, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        samples = list(watch(process, every))
        last = process.communicate()[1].splitlines()[-1:]
        report.seek(0)
        told = report.read() if process.returncode else ""
    grown = {role: growth(samples, role) for role in ROLES}
    ok = process.returncode == 0 and all(each.flat for each in grown.values())
    command = shlex.join(["embconform", *call])
    text = render(samples, grown, command, process.returncode, last, told=told)
    if page:
        write_whole(page, text)
    click.echo(text)
    sys.exit(0 if ok else 1)


def render(
    samples: Sequence[Sample],
    grown: dict[str, Growth],
    call: str,
    code: int,
    last: Sequence[str],
    *,
    told: str = "",
) -> str:
    """Write a page on a soak.

    Parameters
    ----------
    samples : sequence of Sample
    grown : dict of str to Growth
    call : str
        The command line that was soaked.
    code : int
        Its exit code.
    last : sequence of str
        Its last heartbeat.
    told : str
        Its report, where it found something.

    Returns
    -------
    str
        Markdown.
    """
    minutes = samples[-1].seconds / 60
    where = environment("cpu")
    place = ", ".join(f"{name} {where[name]}" for name in ("python", "torch", "numpy", "system"))
    lines = [
        "# Does memory stay flat?",
        "",
        f"`{call}`, {minutes:.1f} minutes on {place}.",
        "Resident memory, in MiB, of the process that judges and of the target's. Written by",
        "",
        "<!-- not run: takes 20 minutes -->",
        "```bash",
        "python -m embconform.proof.soak eager --page docs/soak.md",
        "```",
        "",
        f"It ended with exit code {code}{': no false alarm' if code == 0 else ''}.",
        *(f"Its last heartbeat: {line}" for line in last),
        "",
        f"| process | growth in the last {minutes * (1 - SETTLED):.0f} min, MiB an hour "
        "| 95% interval | |",
        "|---|---|---|---|",
        *(
            f"| {role} | {g.slope:+.1f} | {g.low:+.1f} to {g.high:+.1f} | "
            f"{'flat' if g.flat else 'grows'} |"
            for role, g in grown.items()
        ),
        "",
        "The line is Theil and Sen's; it counts as growth where even the lower end of its interval",
        f"is above {FLAT:.0f} MiB an hour. Medians of each minute:",
        "",
        "| minutes | judges | target |",
        "|---|---|---|",
        *(_row(group) for group in _by_minute(samples)),
        *(["", "What it found:", "", "```", *told.splitlines(), "```"] if told else []),
    ]
    return "\n".join(lines) + "\n"


def _by_minute(samples: Iterable[Sample]) -> list[list[Sample]]:
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(int(sample.seconds // 60), []).append(sample)
    return list(groups.values())


def _row(group: Sequence[Sample]) -> str:
    at = int(group[0].seconds // 60)
    judges = median(sample.judges for sample in group)
    target = median(sample.target for sample in group)
    return f"| {at} to {at + 1} | {judges:.0f} | {target:.0f} |"


if __name__ == "__main__":
    main()
