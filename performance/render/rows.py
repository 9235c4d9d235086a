"""What the tables of a report say, for the terminal and for HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from embconform.performance.growth import Growth
from embconform.performance.measure import Result, Status
from embconform.performance.render import words
from embconform.performance.run import BenchReport
from embconform.performance.timers import NOISY_SPREAD

RESULT_HEADS: Final = ("target", "time", "ratio", "ceiling", "peak", "allocated", "remarks")
GROWTH_HEADS: Final = ("growth", "target", "exponent", "smallest", "largest")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; `ranked` is False where the numbers don't count."""

    cells: tuple[str, ...]
    ranked: bool = True


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of one cell."""

    title: str
    rows: tuple[Row, ...]


def result_blocks(report: BenchReport) -> list[Block]:
    """Group the results by workload and pass.

    Parameters
    ----------
    report : BenchReport

    Returns
    -------
    list of Block
    """
    blocks: dict[str, list[Row]] = {}
    for result in report.results:
        row = _result(result, report.request.against)
        blocks.setdefault(result.cell.name, []).append(row)
    return [Block(title, tuple(rows)) for title, rows in blocks.items()]


def _result(result: Result, against: str) -> Row:
    """Write one target's line; a time that doesn't count has no ratio."""
    ratio = "1" if result.target == against else words.ratio(result.ratio)
    if result.status is Status.UNSUPPORTED:
        ratio = ""
    elif not result.ranked:
        ratio = "not ranked"
    time = words.seconds(result.seconds.value) if result.seconds else ""
    memory = result.memory
    return Row(
        (
            result.target,
            time,
            ratio,
            words.share(result.share_of_ceiling) if result.ranked else "",
            words.bytes_(memory.peak_bytes) if memory else "",
            words.bytes_(memory.allocated_bytes) if memory else "",
            remarks(result),
        ),
        result.ranked,
    )


def remarks(result: Result) -> str:
    """Say what else is to be known of a result.

    Parameters
    ----------
    result : Result

    Returns
    -------
    str
    """
    said = []
    if result.status is not Status.OK:
        said.append(f"{result.status.value}: {result.detail}")
    if result.memory and result.memory.kept_bytes > 0:
        said.append(f"keeps {words.bytes_(result.memory.kept_bytes)} a call")
    made = result.compiled
    if made and made.graphs:
        said.append(f"first call {words.seconds(made.first_call_seconds)}, graphs: {made.graphs}")
    if made and made.recompilations:
        said.append(f"{made.recompilations} recompilations for {made.sizes} sizes")
    if result.noise and result.noise.spread > NOISY_SPREAD and result.samples:
        said.append(f"noisy: samples spread by {result.noise.spread:.0%}")
    return "; ".join(said)


def growth_rows(report: BenchReport) -> list[Row]:
    """Write one line for each target, pass and variable.

    Parameters
    ----------
    report : BenchReport

    Returns
    -------
    list of Row
    """
    return [_growth(growth) for growth in report.growth if growth.sizes]


def _growth(growth: Growth) -> Row:
    ends = [
        f"{words.seconds(growth.seconds[k])} at {growth.sizes[k]:,}"
        for k in (0, len(growth.sizes) - 1)
    ]
    label = f"{growth.chosen} in {growth.variable}"
    shown = words.exponent(growth.exponent) if growth.ranked else "not ranked"
    return Row((label, growth.target, shown, *ends), growth.ranked)


def heading(report: BenchReport) -> str:
    """Say in one line what was measured where.

    Parameters
    ----------
    report : BenchReport

    Returns
    -------
    str
    """
    request, where = report.request, report.environment
    device = where.get("gpu", where["cpu"])
    return (
        f"{', '.join(report.targets)} against {request.against}, {request.device} ({device}), "
        f"{request.threads} thread{'s' if request.threads > 1 else ''} on cores "
        f"{where['affinity']}, torch {where['torch']}, seed {request.seed}, {report.seconds:.0f} s"
    )


def ceilings(report: BenchReport) -> str:
    """Say how fast copies were.

    Parameters
    ----------
    report : BenchReport

    Returns
    -------
    str
    """
    rates = [
        f"{words.bytes_(size)}: {rate / 1e9:.1f}" for size, rate in sorted(report.bandwidth.items())
    ]
    return f"copies of this run, GB/s read and written, by size: {', '.join(rates)}"
