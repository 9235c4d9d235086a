"""A whole run: which cells, in how much time, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from embconform.performance.floors import Bandwidth
from embconform.performance.growth import Growth, grow, points
from embconform.performance.machine import machine
from embconform.performance.measure import Cell, Result, Target, measure
from embconform.performance.passes import PASSES, Inputs, Pass, make_inputs
from embconform.performance.workloads import Workload, fit, free_memory

MOST_SECONDS: Final = 1.0
FEWEST_SECONDS: Final = 0.02
GROWTH_SHARE: Final = 0.2
SMALLEST_GROWTH: Final = 100_000
"""Largest size of a quick run's growth; a full one goes up to 10**6 indices and 10**7 rows."""
GROWTH_PASSES: Final = ("forward", "backward")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes
    ----------
    workloads : tuple of Workload
    passes : tuple of str
        Keys of :data:`embconform.performance.passes.PASSES`.
    caches : tuple of str
        ``warm``, ``cold`` or both.
    against : str
        The name of the target that the others are compared with.
    device : str
    seed, threads : int
    seconds : float
        For all of it; what it doesn't suffice for is left out, and listed.
    growth : bool
        Whether the growth with N and V is measured.
    quick : bool
        Smaller sizes for the growth, and no memory.
    """

    workloads: tuple[Workload, ...]
    passes: tuple[str, ...] = tuple(PASSES)
    caches: tuple[str, ...] = ("warm",)
    against: str = "eager"
    device: str = "cpu"
    seed: int = 0
    threads: int = 1
    seconds: float = 150.0
    growth: bool = True
    quick: bool = False


@dataclass(frozen=True)
class BenchReport:
    """What was measured.

    Attributes
    ----------
    request : Request
    targets : tuple of str
    results : tuple of Result
        Cell by cell, the targets in their order.
    growth : tuple of Growth
    bandwidth : dict of int to float
        Bytes a second of copies, by bytes read and written.
    environment : dict of str to str
    left_out : tuple of str
        What the time did not suffice for.
    notes : tuple of str
    seconds : float
    """

    request: Request
    targets: tuple[str, ...]
    results: tuple[Result, ...]
    growth: tuple[Growth, ...]
    bandwidth: dict[int, float]
    environment: dict[str, str]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass
class _Session:
    """A run while it goes on."""

    request: Request
    targets: Sequence[Target]
    bandwidth: Bandwidth
    progress: Progress | None
    began: float = field(default_factory=perf_counter)
    results: list[Result] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    done: int = 0
    total: int = 0
    dearest: float = 0.0

    @property
    def left(self) -> float:
        return self.request.seconds - (perf_counter() - self.began)

    def step(self, label: str) -> None:
        if self.progress:
            self.progress(self.done, self.total, label)
        self.done += 1

    def cells(self, cells: list[Cell], until: float) -> None:
        """Measure cells, and leave `until` seconds of the time alone."""
        inputs: Inputs | None = None
        for k, cell in enumerate(cells):
            self.step(cell.name)
            left = self.left - until
            if left <= 0 and self.results:
                self.left_out.append(cell.name)
                continue
            each = left / (len(cells) - k) / max(1, len(self.targets)) / 2
            if inputs is None or inputs.workload is not cell.workload:
                del inputs
                inputs = make_inputs(cell.workload, cell.device, self.request.seed)
            self.results += measure(
                cell,
                self.targets,
                against=self.request.against,
                bandwidth=self.bandwidth,
                seconds=min(MOST_SECONDS, max(FEWEST_SECONDS, each)),
                seed=self.request.seed,
                threads=self.request.threads,
                memory=not self.request.quick,
                inputs=inputs,
            )

    def grow(self, plan: list[tuple[Pass, str]], largest: int | None) -> None:
        """Measure how cost grows."""
        for chosen, variable in plan:
            label = f"growth with {variable}, {chosen.name}"
            count = points(variable, largest)
            if self.left <= 0:
                self.left_out.append(label)
                self.done += count
                continue
            each = self.left / (sum(points(v, largest) for _, v in plan) * len(self.targets))
            self.growth += grow(
                chosen,
                variable,
                self.targets,
                device=self.request.device,
                seconds=min(MOST_SECONDS / 4, max(FEWEST_SECONDS, each / 2)),
                seed=self.request.seed,
                threads=self.request.threads,
                largest=largest,
                tick=lambda label=label: self.step(label),  # type: ignore[misc]
            )


def run(
    targets: Sequence[Target], request: Request, *, progress: Progress | None = None
) -> BenchReport:
    """Measure targets, interleaved, in every cell that is asked for.

    Parameters
    ----------
    targets : sequence of Target
        The one that the others are compared with among them.
    request : Request
    progress : callable, optional
        Called with units done, units in all, and what comes next.

    Returns
    -------
    BenchReport
    """
    environment = machine(request.device, request.threads)
    bandwidth = Bandwidth(request.device, threads=request.threads)
    session = _Session(request, targets, bandwidth, progress)
    free = free_memory(request.device)
    cells = [
        Cell(workload, PASSES[name], cache == "cold", request.device)
        for workload in (fit(wished, free) for wished in request.workloads)
        for name in request.passes
        for cache in request.caches
    ]
    plan = [(PASSES[name], v) for name in GROWTH_PASSES if name in request.passes for v in "NV"]
    plan = plan if request.growth else []
    largest = SMALLEST_GROWTH if request.quick else None
    session.total = len(cells) + sum(points(v, largest) for _, v in plan)
    session.cells(cells, until=GROWTH_SHARE * request.seconds if plan else 0.0)
    session.grow(plan, largest)
    if progress:
        progress(session.total, session.total, "")
    return BenchReport(
        request=request,
        targets=tuple(target.name for target in targets),
        results=tuple(session.results),
        growth=tuple(session.growth),
        bandwidth=dict(bandwidth.best),
        environment=environment,
        left_out=tuple(session.left_out),
        notes=_notes(session),
        seconds=perf_counter() - session.began,
    )


def _notes(session: _Session) -> tuple[str, ...]:
    """Say what a reader must know before believing the numbers."""
    notes = []
    adapted = {r.cell.workload for r in session.results if r.cell.workload.adapted}
    notes += [f"{w.name}: {w.adapted}" for w in sorted(adapted, key=lambda w: w.name)]
    noisy = [r for r in session.results if r.noise and r.noise.said and r.samples]
    timed = [r for r in session.results if r.samples]
    if noisy:
        worst = max(noisy, key=lambda r: r.noise.spread if r.noise else 0.0)
        said = worst.noise.said if worst.noise else ""
        notes.append(
            f"noisy machine: {len(noisy)} of {len(timed)} measurements were disturbed, "
            f"most of all {worst.cell.name} ({said.removeprefix('noisy: ')}); "
            "believe ratios only as far as their intervals"
        )
    unsettled = sum(1 for r in timed if r.warm and not r.warm.stable)
    if unsettled:
        notes.append(f"{unsettled} of {len(timed)} measurements began before times had settled")
    if session.left_out:
        notes.append(
            f"{len(session.left_out)} measurements were left out for lack of time; "
            "--seconds gives more"
        )
    return tuple(notes)
