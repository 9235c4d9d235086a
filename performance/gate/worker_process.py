"""A worker: imports sides, gets their calls ready, and times a batch when it is told to."""

from __future__ import annotations

import contextlib
import sys
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np

from embconform.backends.backend import TargetError
from embconform.backends.catalogue import describe
from embconform.performance.checking import Oracle, Timed
from embconform.performance.gate.benchmarks import Benchmark
from embconform.performance.gate.counting import count
from embconform.performance.gate.messages import (
    Answer,
    Batch,
    Calibrate,
    Check,
    Compile,
    Count,
    Err,
    Fault,
    Hello,
    Load,
    Message,
    Unusable,
    Weigh,
)
from embconform.performance.gate.seat import Seat
from embconform.performance.measure import OTHER_SIZES
from embconform.performance.memory import Compiled, first_call, measure_memory, recompilations
from embconform.performance.passes import Inputs, Work, make_inputs, prepare
from embconform.performance.timers import CpuTimer, pinned, warm_up
from embconform.performance.workloads import fit

_WARM_UP_SECONDS: Final = 0.2
_ERROR_TURNS: Final = 2


@dataclass
class _Desk:
    """What a worker has."""

    hello: Hello
    seats: dict[str, Seat] = field(default_factory=dict)
    inputs: dict[str, Inputs] = field(default_factory=dict)
    works: dict[tuple[str, str], Work] = field(default_factory=dict)
    timer: CpuTimer = field(default_factory=CpuTimer)
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    def answer(self, message: Message) -> Answer:
        """Do what a message says; foreign code may raise anything."""
        try:
            if isinstance(message, Load):
                seat = Seat(message.side, self.hello.search_path)
                self.seats[message.side.name] = seat
                return seat.describe()
            if isinstance(message, Count):
                return count(message, self.hello.search_path)
            with self.seats[message.side].active():
                return self._at_work(message)
        except TargetError as error:
            return Unusable(str(error))

    def _at_work(self, message: Calibrate | Batch | Check | Weigh | Err | Compile) -> Answer:
        try:
            inputs, work = self._ready(message.side, message.benchmark)
            if isinstance(message, Compile):
                return self._compile(message.side, work, inputs)
            if isinstance(message, Err):
                return self._err(message, work, inputs)
            if isinstance(message, Calibrate):
                return self._calibrate(work, inputs, message.seconds)
            if isinstance(message, Batch):
                return self._batch(work, inputs, message)
            if isinstance(message, Check):
                return self._check(message, work, inputs)
            return measure_memory(work, inputs.indices, "cpu")
        except (Exception, SystemExit) as error:
            said = f"{message.benchmark.name}: {describe(error)}"
            raise TargetError(said) from error

    def _ready(self, side: str, benchmark: Benchmark) -> tuple[Inputs, Work]:
        """Give inputs, the same for all sides, and a side's call on them."""
        workload = benchmark.workload
        if workload.name not in self.inputs:
            self.inputs[workload.name] = make_inputs(fit(workload), "cpu", self.hello.seed)
        inputs = self.inputs[workload.name]
        key = side, benchmark.name
        if key not in self.works:
            self.works[key] = prepare(self.seats[side].backend, benchmark.chosen, inputs)
        return inputs, self.works[key]

    def _calibrate(self, work: Work, inputs: Inputs, seconds: float) -> int:
        warm = warm_up(self.timer, work, inputs.indices, _WARM_UP_SECONDS)
        # the least: what disturbs a block would make batches short
        blocks = [self.timer.block(work, inputs.indices, warm.number, k) for k in range(5)]
        ns = min(block.ns for block in blocks)
        work.release()
        return max(1, int(seconds * 1e9 / max(ns, 1.0)) + 1)

    def _batch(self, work: Work, inputs: Inputs, batch: Batch) -> float:
        total = batch.number + batch.extra
        block = self.timer.block(work, inputs.indices, total, batch.start)
        work.release()
        return block.ns * 1e-9 * total / batch.number

    def _check(self, message: Check, work: Work, inputs: Inputs) -> str:
        """Change the inputs, call, and compare: an answer kept from earlier is wrong."""
        if not inputs.saved:
            inputs.disturb(self.rng)
        block = self.timer.block(work, inputs.indices, 1, int(self.rng.integers(4)))
        oracle = Oracle(message.benchmark.chosen, inputs, self.rng)
        profile = self.seats[message.side].backend.profiles[0]
        said = oracle.wrong_with(Timed(block.turn, block.output), work, profile)
        work.release()
        return said

    def _err(self, message: Err, work: Work, inputs: Inputs) -> float:
        """Compare gradients with the exact ones, on inputs that are the same in each process."""
        if not inputs.saved:
            inputs.disturb(np.random.default_rng(self.hello.seed))
        oracle = Oracle(message.benchmark.chosen, inputs, np.random.default_rng(self.hello.seed))
        profile = self.seats[message.side].backend.profiles[0]
        worst = 0.0
        for turn in range(_ERROR_TURNS):
            self.timer.block(work, inputs.indices, 1, turn)
            worst = max(worst, oracle.largest_error(turn, work, profile))
            work.release()
        return worst

    def _compile(self, side: str, work: Work, inputs: Inputs) -> Compiled:
        """Make the first call, and where that compiles something, calls of other sizes."""
        made = first_call(work, inputs.indices[0])
        if not (made.graphs or self.seats[side].backend.compiled):
            return made
        sizes = [size for size in OTHER_SIZES if size != len(inputs.indices[0])]
        graphs, again = recompilations(work.run, inputs.indices[0], sizes)
        return Compiled(made.first_call_seconds, made.graphs + graphs, again, len(sizes))


def main(arguments: list[str]) -> None:
    """Answer until the other side hangs up.

    Parameters
    ----------
    arguments : list of str
        The inherited descriptor of a connection.
    """
    from embconform.backends.parent import end_with_parent

    end_with_parent()
    connection: Any = Connection(int(arguments[0]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        hello: Hello = connection.recv()
        desk = _Desk(hello)
        with pinned(hello.threads):
            while True:
                message = connection.recv()
                try:
                    answer = desk.answer(message)
                except Exception:
                    answer = Fault(traceback.format_exc())
                connection.send(answer)


if __name__ == "__main__":
    # under its name as a module, so that what is pickled has one name in both processes
    from embconform.performance.gate.worker_process import main as _main

    _main(sys.argv[1:])
