"""Run a target in a process of its own, and replace the process when it is lost."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
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
    ObserveCase,
    ObserveProbe,
    Ready,
    Seen,
    Unusable,
)
from embconform.conformance.isolation.worker import STOPPED, Printed, Worker
from embconform.conformance.outcome import Lost, MemorySeen, Outcome, StepSeen
from embconform.conformance.probes.claims import Record, Unfinished
from embconform.reference.clause import Profile

SPARES: Final = max(1, min(3, (os.cpu_count() or 1) - 1))
"""Processes that are started ahead of their need where a target has lost its device once."""
_PATIENCE: Final = 10.0


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
        """Run a case.

        A process that is lost costs this case only: what the case did before the step at which it
        happened is observed again, in another process.
        """
        answer = self._ask(ObserveCase(case, parallel))
        if isinstance(answer, Lost):
            return self._up_to(case, answer, parallel=parallel)
        assert isinstance(answer, Outcome)
        return answer

    def probe(self, name: str, profile: Profile, seed: int) -> Any | Lost:
        """Run a probe's observation; a Lost where the process did not survive it.

        The trials after one in which the device was lost are run in another process.
        """
        earlier: tuple[Record, ...] = ()
        while True:
            answer = self._ask(ObserveProbe(name, profile, seed, len(earlier)))
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
            self._replace(answer)
        if isinstance(answer, Outcome | Seen) and answer.ruined:
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

    def _replace(self, lost: Lost) -> None:
        """Count a loss; the next question goes to another process."""
        self.crashes += lost.kind == "crash"
        self.timeouts += lost.kind == "timeout"
        if self._worker is not None:
            self._worker.close()
        self._worker = None

    def _up_to(self, case: Case, lost: Lost, *, parallel: bool) -> Outcome:
        """Observe the steps before a loss, and add the loss as the step that it happened in."""
        steps: tuple[StepSeen, ...] = ()
        if lost.mark > 0 and not self.stop():
            before = replace(case, steps=case.steps[: lost.mark])
            answer = self._ask(ObserveCase(before, parallel))
            if isinstance(answer, Outcome) and len(answer.steps) == lost.mark:
                steps = answer.steps
        memory = steps[-1].memory if steps else MemorySeen(case.weight.values, True, {}, True)
        return Outcome((*steps, StepSeen(None, memory, lost=lost)))
