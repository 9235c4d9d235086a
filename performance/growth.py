"""How cost grows with the number of indices N and of rows V."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from embconform.performance.measure import Cell, Result, Target, measure
from embconform.performance.passes import Pass
from embconform.performance.statistics import Estimate, exponent
from embconform.performance.workloads import Table, Workload, fit, free_memory

WIDTH: Final = 16
INDICES: Final = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
ROWS: Final = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
ROWS_FOR_INDICES: Final = 10_000
INDICES_FOR_ROWS: Final = 1_000


@dataclass(frozen=True)
class Growth:
    """How the cost of one target in one pass grows.

    Attributes
    ----------
    target, chosen : str
        The target and the pass.
    variable : str
        ``N`` (indices) or ``V`` (rows).
    sizes : tuple of int
        Those that could be measured.
    seconds : tuple of float
        The medians at these sizes.
    exponent : Estimate
        Of the cost over the last two decades; 1 is proportional, 0 is constant.
    ranked : bool
        Whether all the outputs were right.
    """

    target: str
    chosen: str
    variable: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: Estimate
    ranked: bool


def grow(
    chosen: Pass,
    variable: str,
    targets: Sequence[Target],
    *,
    device: str,
    seconds: float,
    seed: int,
    threads: int,
    largest: int | None = None,
    tick: Callable[[], None] | None = None,
) -> list[Growth]:
    """Measure a pass at one size after another.

    Parameters
    ----------
    chosen : Pass
    variable : str
        ``N``: 1 to 10**6 uniform indices into 10,000 rows. ``V``: 1,000 uniform indices into 10**2
        to 10**7 rows. All of 16 columns of float32.
    targets : sequence of Target
    device : str
    seconds : float
        A target and size.
    seed, threads : int
    largest : int, optional
        Leave larger sizes out.
    tick : callable, optional
        Called after each size.

    Returns
    -------
    list of Growth
        One a target; sizes that don't fit the memory are left out.
    """
    found: dict[str, list[tuple[int, Result]]] = {target.name: [] for target in targets}
    for size in _sizes(variable, largest):
        workload = fit(_workload(variable, size), free_memory(device))
        if not workload.adapted:
            cell = Cell(workload, chosen, device=device)
            for result in measure(
                cell, targets, seconds=seconds, seed=seed, threads=threads, memory=False
            ):
                found[result.target].append((size, result))
        if tick:
            tick()
    return [_sum_up(name, chosen, variable, points) for name, points in found.items()]


def _sizes(variable: str, largest: int | None) -> list[int]:
    sizes = {"N": INDICES, "V": ROWS}[variable]
    return [size for size in sizes if largest is None or size <= largest]


def points(variable: str, largest: int | None = None) -> int:
    """Count the sizes that :func:`grow` goes through."""
    return len(_sizes(variable, largest))


def _workload(variable: str, size: int) -> Workload:
    rows, count = (ROWS_FOR_INDICES, size) if variable == "N" else (size, INDICES_FOR_ROWS)
    return Workload(Table("growth", rows, WIDTH, "made up"), f"{variable}{size}", count, "uniform")


def _sum_up(name: str, chosen: Pass, variable: str, found: list[tuple[int, Result]]) -> Growth:
    timed = [(size, result.seconds.value) for size, result in found if result.seconds]
    sizes, seconds = zip(*timed, strict=True) if timed else ((), ())
    slope = exponent(sizes, seconds) if len(timed) > 1 else Estimate(float("nan"))
    ranked = all(result.ranked for _, result in found) and bool(timed)
    return Growth(name, chosen.name, variable, tuple(sizes), tuple(seconds), slope, ranked)
