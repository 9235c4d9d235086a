"""Run a target in a process of its own, and replace the process when it is lost."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

from embconform.backends.backend import Description, TargetError
from embconform.conformance.cases.case import Case
from embconform.conformance.isolation.limits import Limits
from embconform.conformance.isolation.messages import (
    Ending,
    Fault,
    Finish,
    Hello,
    ObserveCases,
    ObserveProbe,
    Outcomes,
    Ready,
    Seen,
    Unusable,
)
from embconform.conformance.isolation.worker import STOPPED, Printed, Worker
from embconform.conformance.marker import STEPS
from embconform.conformance.outcome import Lost, MemorySeen, Outcome, StepSeen
from embconform.conformance.probes.claims import Record, Unfinished
from embconform.reference.clause import Profile

SPARES: Final = max(1, min(3, (os.cpu_count() or 1) - 1))
"""Processes that are started ahead of their need where a target has lost its device once."""
_PATIENCE: Final = 10.0
_AT_ONCE: Final = 2**23
"""Bytes of cases that are sent together, about; larger ones go alone."""


class WorkerFaultError(Exception):
    """The suite failed in the target's process; the message is the traceback from there."""


class Isolated:
    """Runs a target in a process of its own.

    Parameters
    ----------
    target : str
        As the user named it; it is imported in the process only.
    device : str, optional
        ``cpu`` or ``cuda``; the target's own by default.
    limits : Limits
    stop : callable, optional
        Asked while waiting; the case at hand is given up where it says yes.
    search_path : tuple of str, optional
        ``sys.path`` of the process; this one's by default.
    folder : str, optional
        Its working directory; this one's by default.

    Raises
    ------
    TargetError
        If the target can't be found, imported or used.
    """

    def __init__(
        self,
        target: str,
        device: str | None = None,
        limits: Limits | None = None,
        stop: Callable[[], bool] = lambda: False,
        *,
        search_path: tuple[str, ...] | None = None,
        folder: str | None = None,
    ) -> None:
        self.target, self.limits, self.stop = target, limits or Limits(), stop
        self.printed = Printed()
        self.crashes = self.timeouts = 0
        self._slowest = 0.0
        memory = self.limits.memory_bytes()
        path, place = search_path or tuple(sys.path), folder or str(Path.cwd())
        self._hello = Hello(target, device, path, place, dict(os.environ), memory)
        self._tampered: dict[str, None] = {}
        self._spares: deque[Worker] = deque()
        self._leaving: list[Worker] = []
        self._ahead = SPARES
        self._worker: Worker | None = self._start()
        self._welcomed: Worker | None = None
        self._ready: Ready | None = None

    @property
    def description(self) -> Description:
        """What is known of the target; waits until it is imported."""
        return self._known().description

    @property
    def environment(self) -> dict[str, str]:
        """Where it runs."""
        return self._known().environment

    @property
    def device(self) -> str:
        """Which device it runs on."""
        return self._known().device

    @property
    def losses(self) -> tuple[int, int]:
        """How often the target crashed, and how often it was late."""
        return self.crashes, self.timeouts

    def observe(self, case: Case, *, parallel: bool) -> Outcome:
        """Run a case; see :meth:`observe_all`."""
        return next(self.observe_all([(case, parallel)]))

    def observe_all(self, cases: Sequence[tuple[Case, bool]]) -> Iterator[Outcome]:
        """Run cases, several at a time: each question and answer has its price.

        A process that is lost costs one case only: what was done before the step at which it
        happened is observed again, in another process.

        Parameters
        ----------
        cases : sequence of (Case, bool)
            Each with whether kernels may use more threads than one.

        Yields
        ------
        Outcome
            One a case, up to the first that `stop` interrupts.
        """
        for some in _portions(cases):
            yield from self._observed(some)

    def probe(self, name: str, profile: Profile, seed: int) -> Any | Lost:
        """Run a probe's observation; a Lost where the process did not survive it.

        The trials after one in which the device was lost are run in another process.
        """
        earlier: tuple[Record, ...] = ()
        while True:
            answer = self._ask(ObserveProbe(name, profile, seed, len(earlier)))
            if isinstance(answer, Lost):
                self._count(answer)
            if not isinstance(answer, Seen):
                return answer
            seen = answer.observation
            if not (isinstance(seen, Unfinished) and seen.records):
                return seen if not earlier else (*earlier, *cast("tuple[Record, ...]", seen))
            earlier += seen.records

    def rest(self) -> None:
        """Learn what the target is, and end its process until it is needed."""
        self._known()
        self.close()

    def renew(self) -> None:
        """End the process; what comes next is done in another."""
        self.finish()

    def finish(self) -> tuple[str, ...]:
        """End the process, and name what the target had tampered with."""
        worker = self._worker
        living = worker is not None and worker is self._welcomed
        answer = worker.ask(Finish(), self._seconds()) if worker and living else None
        self.close()
        self._note(answer)
        return tuple(self._tampered)

    def close(self) -> None:
        """End the process, and those that wait to take its place."""
        workers = [*filter(None, [self._worker]), *self._spares, *self._leaving]
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.close()
        self._worker = None
        self._spares.clear()
        self._leaving.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _seconds(self) -> float:
        compiled = bool(self._ready and self._ready.description.compiled)
        slowest = self._slowest if self.timeouts else None
        return self.limits.case_seconds(compiled=compiled, slowest=slowest)

    def _start(self) -> Worker:
        return Worker(self._hello, self.printed)

    def _known(self) -> Ready:
        if self._ready is None:
            assert self._worker is not None
            self._ready = self._welcome(self._worker)
        return self._ready

    def _welcome(self, worker: Worker) -> Ready:
        """Wait until a new process has imported the target."""
        answer = worker.answer(self.limits.start, self.stop)
        if isinstance(answer, Ready):
            self._welcomed, worker.slowest = worker, 0.0  # imports are no step
            return answer
        worker.close()
        if self.stop():
            raise KeyboardInterrupt
        if isinstance(answer, Lost):
            verb = "took too long" if answer.kind == "timeout" else "failed"
            raise TargetError(f"{self.target}: importing it {verb}: {answer.detail}")
        if isinstance(answer, Unusable):
            raise TargetError(answer.message)
        raise WorkerFaultError(answer.text if isinstance(answer, Fault) else repr(answer))

    def _ask(self, message: Any) -> Any:
        self._known()
        worker = self._worker or self._next()
        if worker is not self._welcomed:
            try:
                worker = self._welcomed_of(worker)
            except KeyboardInterrupt:
                if not self.stop():
                    raise
                return STOPPED  # what was seen before is kept
        self._worker = worker
        answer = worker.ask(message, self._seconds(), self.stop)
        self._slowest = max(self._slowest, worker.slowest)
        if isinstance(answer, Fault):
            raise WorkerFaultError(answer.text)
        if isinstance(answer, Lost) and not self.stop():
            self._drop()
        if isinstance(answer, Outcomes | Seen) and answer.ruined:
            self._retire(worker)
        return answer

    def _welcomed_of(self, worker: Worker) -> Worker:
        """Wait until a process is ready; one that was started ahead may have come too early.

        A device may serve one process at a time: what it refused while another had it is tried
        again when that has ended.
        """
        try:
            self._welcome(worker)
        except TargetError:
            if not self._leaving and not self._spares:
                raise
            for other in (*self._leaving, *self._spares):
                other.close()
            self._spares.clear()
            self._leaving.clear()
            self._ahead = 0
            worker = self._start()
            self._welcome(worker)
        return worker

    def _next(self) -> Worker:
        """Take a process that was started ahead, or start one."""
        return self._spares.popleft() if self._spares else self._start()

    def _retire(self, worker: Worker) -> None:
        """Let a process end whose device is lost.

        That is no crash. Others are started ahead from then on, since a CUDA context takes its
        time, and a target that loses one will lose more.
        """
        while len(self._spares) < self._ahead:
            self._spares.append(self._start())
        self._note(worker.answer(_PATIENCE, self.stop))
        worker.kill()
        self._leaving = [each for each in (*self._leaving, worker) if not each.gone()]
        self._worker = None

    def _note(self, answer: Any) -> None:
        """Keep what a process that ended said of tampering."""
        if isinstance(answer, Ending):
            self._tampered |= dict.fromkeys(answer.tampered)

    def _count(self, lost: Lost) -> None:
        """Count a loss that somebody is told of."""
        if not self.stop():
            self.crashes += lost.kind == "crash"
            self.timeouts += lost.kind == "timeout"

    def _drop(self) -> None:
        """Let the next question go to another process."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None

    def _observed(self, cases: tuple[tuple[Case, bool], ...]) -> Iterator[Outcome]:
        """Run cases in one process, and in further ones where that is lost."""
        while cases:
            answer = self._ask(ObserveCases(cases))
            if isinstance(answer, Lost):
                yield from self._despite(answer, cases)
                return
            assert isinstance(answer, Outcomes)
            yield from answer.outcomes
            cases = cases[len(answer.outcomes) :]

    def _despite(self, lost: Lost, cases: tuple[tuple[Case, bool], ...]) -> Iterator[Outcome]:
        """Give the outcomes of cases in one of which the process was lost.

        What hangs does so in the step that it is at. What dies may have been hurt by an earlier
        case, so they are asked for one by one; where none dies alone, it is the one that did. The
        mark is in memory that a target can write to.
        """
        at, step = divmod(max(lost.mark, 0), STEPS)
        at = min(at, len(cases) - 1)
        blamed = replace(lost, mark=step)
        if self.stop() or len(cases) == 1:
            yield self._up_to(*cases[0], blamed)
        elif lost.kind == "timeout":
            yield from self._observed(cases[:at])
            yield self._up_to(*cases[at], blamed)
            yield from self._observed(cases[at + 1 :])
        else:
            before = self.crashes
            outcomes = [outcome for case in cases for outcome in self._observed((case,))]
            if self.crashes == before and not self.stop():
                outcomes[at] = self._up_to(*cases[at], blamed)
            yield from outcomes

    def _up_to(self, case: Case, parallel: bool, lost: Lost) -> Outcome:
        """Observe the steps before a loss, and add the loss as the step that it happened in."""
        self._count(lost)
        steps: tuple[StepSeen, ...] = ()
        if lost.mark > 0 and not self.stop():
            before = replace(case, steps=case.steps[: lost.mark])
            answer = self._ask(ObserveCases(((before, parallel),)))
            if isinstance(answer, Outcomes) and len(answer.outcomes[0].steps) == lost.mark:
                steps = answer.outcomes[0].steps
        memory = steps[-1].memory if steps else MemorySeen(case.weight.values, True, {}, True)
        return Outcome((*steps, StepSeen(None, memory, lost=lost)))


def _portions(cases: Sequence[tuple[Case, bool]]) -> Iterator[tuple[tuple[Case, bool], ...]]:
    """Keep together what is small."""
    some: list[tuple[Case, bool]] = []
    size = 0
    for case, parallel in cases:
        size += case.nbytes
        if some and size > _AT_ONCE:
            yield tuple(some)
            some, size = [], case.nbytes
        some.append((case, parallel))
    if some:
        yield tuple(some)
