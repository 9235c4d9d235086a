"""The one core that measures: command line, asv and pytest-benchmark all get numbers here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter
from typing import Final

import numpy as np

from embconform.backends.backend import Backend
from embconform.backends.catalogue import describe
from embconform.performance.checking import Oracle, Timed
from embconform.performance.floors import Bandwidth, Traffic, traffic
from embconform.performance.memory import (
    Compiled,
    Memory,
    first_call,
    measure_memory,
    recompilations,
)
from embconform.performance.passes import Inputs, Pass, Work, make_inputs, prepare
from embconform.performance.statistics import FEWEST, Estimate, median
from embconform.performance.timers import (
    CpuTimer,
    Noise,
    NoiseMeter,
    Timer,
    Warm,
    pinned,
    warm_up,
)
from embconform.performance.workloads import Workload

FEWEST_ROUNDS: Final = FEWEST + 1
MOST_ROUNDS: Final = 2_000
WARM_UP_SHARE: Final = 0.3
COPY_SECONDS: Final = 0.02
OTHER_SIZES: Final = (2, 3, 5, 8, 13, 21, 34)
"""Numbers of indices that tell whether a compiled target makes a graph for each."""


class Status(StrEnum):
    """What became of a target in a cell."""

    OK = "ok"
    WRONG = "wrong"
    NONCONFORMANT = "nonconformant"
    UNSUPPORTED = "unsupported"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Cell:
    """What is measured for all targets together.

    Attributes
    ----------
    workload : Workload
        That fits the memory.
    chosen : Pass
    cold : bool
        Caches emptied before each call.
    device : str
    """

    workload: Workload
    chosen: Pass
    cold: bool = False
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Workload, pass, and the state of the caches."""
        return f"{self.workload.name} {self.chosen.name} {'cold' if self.cold else 'warm'}"


@dataclass(frozen=True)
class Target:
    """A backend under the name that the user gave it.

    Attributes
    ----------
    name : str
    backend : Backend
    broken : dict of str to frozenset of str
        The clauses that it breaks, with what each needs of a backend.
    """

    name: str
    backend: Backend
    broken: dict[str, frozenset[str]] = field(default_factory=dict)

    def broken_in(self, cell: Cell) -> list[str]:
        """List the broken clauses that speak of the options of a cell."""
        of_the_call = cell.chosen.needs(cell.workload) | {"functional", "module"}
        if cell.workload.dtype in ("bfloat16", "float16"):
            of_the_call |= {"half"}
        return [clause for clause, needs in self.broken.items() if needs <= of_the_call]


@dataclass(frozen=True)
class Result:
    """What was measured of one target in one cell; times in seconds a call.

    Attributes
    ----------
    target : str
    cell : Cell
    status : Status
    detail : str
        Why it isn't ``ok``.
    samples : tuple of float
        One a round, in the order of the rounds; the same rounds for all targets.
    seconds : Estimate or None
    ratio : Estimate or None
        Seconds over those of the target that all are compared with, round by round.
    moved : Traffic or None
        Bytes that have to move.
    floor_seconds : float
        How long that takes at least; NaN where it was not measured.
    memory : Memory or None
    compiled : Compiled or None
    warm : Warm or None
    noise : Noise or None
    checked : int
        Timed calls whose results the oracle has compared.
    """

    target: str
    cell: Cell
    status: Status
    detail: str = ""
    samples: tuple[float, ...] = ()
    seconds: Estimate | None = None
    ratio: Estimate | None = None
    moved: Traffic | None = None
    floor_seconds: float = math.nan
    memory: Memory | None = None
    compiled: Compiled | None = None
    warm: Warm | None = None
    noise: Noise | None = None
    checked: int = 0

    @property
    def share_of_ceiling(self) -> float:
        """The floor over the time: 1 is as fast as the bytes can move."""
        return self.floor_seconds / self.seconds.value if self.seconds else math.nan

    @property
    def ranked(self) -> bool:
        """Whether the time counts: right outputs, conformant on these options."""
        return self.status is Status.OK


@dataclass
class _Runner:
    """A target while it is measured."""

    target: Target
    work: Work | None = None
    warm: Warm | None = None
    compiled: Compiled | None = None
    memory: Memory | None = None
    samples: list[float] = field(default_factory=list)
    status: Status = Status.OK
    detail: str = ""
    checked: int = 0

    @property
    def running(self) -> bool:
        return self.work is not None and self.status is Status.OK

    def fail(self, status: Status, detail: str) -> None:
        self.status, self.detail = status, detail


def make_timer(device: str, *, cold: bool) -> Timer:
    """Make the clock for a device.

    Parameters
    ----------
    device : str
    cold : bool

    Returns
    -------
    Timer
    """
    if device == "cuda":
        from embconform.performance.cuda import CudaTimer

        return CudaTimer(cold=cold)
    return CpuTimer(cold=cold)


def measure(
    cell: Cell,
    targets: Sequence[Target],
    *,
    against: str | None = None,
    bandwidth: Bandwidth | None = None,
    seconds: float = 0.5,
    seed: int = 0,
    threads: int = 1,
    memory: bool = True,
    inputs: Inputs | None = None,
) -> list[Result]:
    """Measure targets in one cell, in turn, so that what disturbs one disturbs all.

    Parameters
    ----------
    cell : Cell
    targets : sequence of Target
    against : str, optional
        The name of the target that the others are compared with; the first by default.
    bandwidth : Bandwidth, optional
        Without it there is no floor.
    seconds : float
        How long each target is timed, warm-up included; the fewest rounds may take longer.
    seed : int
    threads : int
        Of torch; fewer for a backend that can't do with as many.
    memory : bool
        Whether memory and recompilations are measured too, after the times.
    inputs : Inputs, optional
        Of the cell's workload and device, drawn before; drawn anew where they are of another.

    Returns
    -------
    list of Result
        One a target, in their order.
    """
    if inputs is None or inputs.workload is not cell.workload:
        inputs = make_inputs(cell.workload, cell.device, seed)
    inputs.saved.clear()
    rng = np.random.default_rng((seed, 1))
    race = _Race(cell, inputs, make_timer(cell.device, cold=cell.cold), rng)
    runners = [_Runner(target) for target in targets]
    allowed = min([threads, *(t.backend.threads for t in targets if t.backend.threads)])
    with pinned(allowed):
        for runner in runners:
            race.get_ready(runner, seconds * WARM_UP_SHARE)
        meter = NoiseMeter()
        race.run(runners, seconds * (1 - WARM_UP_SHARE))
        noises = {runner.target.name: meter.read(runner.samples or [0.0]) for runner in runners}
        for runner in runners:
            if runner.running and memory:
                race.look_at_memory(runner)
    moved = traffic(cell.chosen, inputs)
    floor = math.nan
    if bandwidth:
        bandwidth.measure(bandwidth.footprints[-1] if cell.cold else moved.total, COPY_SECONDS)
        floor = bandwidth.floor_seconds(moved, cold=cell.cold)
    base = next((r for r in runners if r.target.name == (against or targets[0].name)), None)
    return [
        _result(r, base, cell, moved=moved, floor=floor, noise=noises[r.target.name])
        for r in runners
    ]


@contextmanager
def _reporting(runner: _Runner) -> Iterator[None]:
    """Turn an exception of foreign code into a status."""
    try:
        yield
    except (Exception, SystemExit) as error:
        runner.fail(Status.CRASH, describe(error))


@dataclass
class _Race:
    """One cell, in which targets run in turn."""

    cell: Cell
    inputs: Inputs
    timer: Timer
    rng: np.random.Generator

    def get_ready(self, runner: _Runner, seconds: float) -> None:
        """Prepare a target, make its first call and warm it up; or say why that can't be."""
        backend, cell = runner.target.backend, self.cell
        lacks = sorted(cell.chosen.needs(cell.workload) - backend.able)
        lacks += [cell.workload.dtype] * (cell.workload.dtype not in backend.known_dtypes)
        lacks += [cell.device] * (cell.device not in backend.capabilities.devices)
        if lacks:
            runner.fail(Status.UNSUPPORTED, f"has no {', '.join(lacks)}")
            return
        with _reporting(runner):
            if backend.prepare:
                backend.prepare()
            runner.work = prepare(backend, cell.chosen, self.inputs)
            runner.compiled = first_call(runner.work, self.inputs.indices[0])
            runner.warm = warm_up(self.timer, runner.work, self.inputs.indices, seconds)

    def run(self, runners: list[_Runner], seconds: float) -> None:
        """Let each target run a block in each round, in an order drawn anew."""
        ends = perf_counter() + seconds * max(1, sum(runner.running for runner in runners))
        turn, next_check, last = 0, 0, False
        while not last and any(runner.running for runner in runners):
            over = perf_counter() >= ends and turn + 1 >= FEWEST_ROUNDS
            last = over or turn + 1 >= MOST_ROUNDS
            check = last or turn == next_check
            if not self.inputs.saved:
                self.inputs.disturb(self.rng)
            for k in self.rng.permutation(len(runners)):
                if runners[k].running:
                    self.one_block(runners[k], turn, check=check)
            if turn == next_check:
                next_check = 4 * turn + 1
            turn += 1
        self.inputs.restore()

    def one_block(self, runner: _Runner, turn: int, *, check: bool) -> None:
        """Time a block of one target, and compare what its last call did with the oracle."""
        assert runner.work is not None
        assert runner.warm is not None
        with _reporting(runner):
            block = self.timer.block(runner.work, self.inputs.indices, runner.warm.number, turn)
            runner.samples.append(block.ns * 1e-9)
            if check:
                oracle = Oracle(self.cell.chosen, self.inputs, self.rng)
                timed = Timed(block.turn, block.output)
                profile = runner.target.backend.profiles[0]
                wrong = oracle.wrong_with(timed, runner.work, profile)
                runner.checked += 1
                if wrong:
                    runner.fail(Status.WRONG, f"in a timed call: {wrong}")
        runner.work.release()

    def look_at_memory(self, runner: _Runner) -> None:
        """Measure what is not time."""
        assert runner.work is not None
        work, made, count = runner.work, runner.compiled, self.cell.workload.count
        with _reporting(runner):
            runner.memory = measure_memory(work, self.inputs.indices, self.cell.device)
            compiles = runner.target.backend.compiled or bool(made and made.graphs)
            if made and compiles and self.cell.chosen.name == "forward":
                sizes = [size for size in OTHER_SIZES if size != count]
                graphs, again = recompilations(work.run, self.inputs.indices[0], sizes)
                runner.compiled = Compiled(
                    made.first_call_seconds, made.graphs + graphs, again, len(sizes)
                )
        self.inputs.restore()


def _result(
    runner: _Runner, base: _Runner | None, cell: Cell, *, moved: Traffic, floor: float, noise: Noise
) -> Result:
    """Sum a target up."""
    status, detail = runner.status, runner.detail
    broken = runner.target.broken_in(cell)
    if status is Status.OK and broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        status, detail = Status.NONCONFORMANT, f"breaks {', '.join(broken[:3])}{more}"
    seconds = median(runner.samples) if runner.samples else None
    ratio = None
    if base is not None and seconds is not None and len(base.samples) == len(runner.samples):
        ratio = median(np.asarray(runner.samples) / np.asarray(base.samples))
    return Result(
        target=runner.target.name,
        cell=cell,
        status=status,
        detail=detail,
        samples=tuple(runner.samples),
        seconds=seconds,
        ratio=ratio,
        moved=moved,
        floor_seconds=floor,
        memory=runner.memory,
        compiled=runner.compiled,
        warm=runner.warm,
        noise=noise,
        checked=runner.checked,
    )
