"""The gate's side of its workers: one process for all sides, or one for each."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import Pipe
from types import TracebackType
from typing import Any, Final, Self

from embconform.performance.gate.messages import (
    Answer,
    Fault,
    Hello,
    Load,
    Loaded,
    Message,
    Side,
    Unusable,
)

_MODULE: Final = "embconform.performance.gate.worker_process"
_PATIENCE: Final = 120.0
"""Seconds that an answer may take: an import of torch and a large table on a busy machine."""
_GONE: Final = (EOFError, OSError, pickle.UnpicklingError)


class SideError(Exception):
    """A side can't be used.

    Parameters
    ----------
    side : str
    message : str
        One line.
    """

    def __init__(self, side: str, message: str) -> None:
        super().__init__(message)
        self.side = side


class WorkerFaultError(Exception):
    """The gate failed in a worker; the message is the traceback from there."""


class Worker:
    """A process; it leads a group of its own, so that it gets no signal from the terminal.

    Parameters
    ----------
    hello : Hello
    environment : dict of str to str, optional
        Variables that it has besides this process's.
    under : sequence of str
        A command that runs it.
    patience : float
        Seconds that an answer may take.
    """

    def __init__(
        self,
        hello: Hello,
        environment: dict[str, str] | None = None,
        *,
        under: Sequence[str] = (),
        patience: float = _PATIENCE,
    ) -> None:
        self._patience = patience
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [*under, sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=os.environ | (environment or {}),
            start_new_session=True,
        )
        theirs.close()
        self._connection.send(hello)

    def ask(self, message: Message, side: str) -> Any:
        """Send a message and wait for its answer.

        Raises
        ------
        SideError
            If foreign code raised, took too long, or ended the process.
        WorkerFaultError
            If the gate failed there.
        """
        try:
            self._connection.send(message)
            if not self._connection.poll(self._patience):
                raise SideError(side, f"gave no answer within {self._patience:.0f} s")
            answer: Answer = self._connection.recv()
        except _GONE as error:
            raise SideError(side, f"its process {self._ending()}") from error
        if isinstance(answer, Unusable):
            raise SideError(side, answer.message)
        if isinstance(answer, Fault):
            raise WorkerFaultError(answer.text)
        return answer

    def _ending(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "sent what can't be read"
        if code < 0:
            return f"died of {signal.Signals(-code).name}"
        return f"ended itself with exit code {code}"

    def close(self) -> None:
        """End the process and all that it started."""
        self._connection.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Crew:
    """The workers of a restart.

    Parameters
    ----------
    sides : sequence of Side
    hello : Hello
    together : bool
        Whether all sides are in one process.
    environment : dict of str to str, optional
        Variables that they have besides this process's.

    Raises
    ------
    SideError
        If a side can't be imported.
    """

    def __init__(
        self,
        sides: Sequence[Side],
        hello: Hello,
        *,
        together: bool,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._environment = environment
        self._workers: list[Worker] = []
        self._of: dict[str, Worker] = {}
        self.loaded: dict[str, Loaded] = {}
        try:
            shared = self._start(hello) if together else None
            for side in sides:
                self._of[side.name] = shared or self._start(hello)
            for side in sides:
                answer = self.ask(Load(side), side.name)
                assert isinstance(answer, Loaded)
                self.loaded[side.name] = answer
        except BaseException:
            self.close()
            raise

    def _start(self, hello: Hello) -> Worker:
        worker = Worker(hello, self._environment)
        self._workers.append(worker)
        return worker

    def ask(self, message: Message, side: str) -> Any:
        """Ask the worker of a side; as :meth:`Worker.ask`."""
        return self._of[side].ask(message, side)

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
