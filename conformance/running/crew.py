"""Spread a run's jobs over processes of this machine, each with an isolated target of its own."""

from __future__ import annotations

import contextlib
import pickle
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import Pipe
from types import TracebackType
from typing import Any, Final, Self

from embconform.conformance.cases.strata import pairs
from embconform.conformance.isolation.forking import server
from embconform.conformance.running.course import Done, Explore, Job, Jobs
from embconform.conformance.running.helper_process import (
    Assignment,
    Dismissed,
    Failed,
    GetReady,
    Hired,
)

_MODULE: Final = "embconform.conformance.running.helper_process"
_SLICE: Final = 0.2
_AHEAD: Final = 2
"""Units that a helper is given at once, so that it need not wait for the next."""
_GONE: Final = (EOFError, OSError, pickle.UnpicklingError)


class HelperFaultError(Exception):
    """The suite failed in a helper; the message is the traceback from there."""


class Helper:
    """The nearer side of :mod:`helper_process`.

    It leads a process group, so that it gets no signal from the terminal.
    """

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        with theirs, server().line() as line:
            given = [theirs.fileno(), line.fileno()]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, *map(str, given)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=given,
                start_new_session=True,
            )
        self.alive = True
        self.ready = threading.Event()
        self._told = False

    def get_ready(self, message: GetReady) -> None:
        """Let it do what it can before it is assigned; said once, for however many targets."""
        if self._told:
            return
        self._told = True
        with contextlib.suppress(*_GONE):
            self._connection.send(message)

    def assign(self, assignment: Assignment) -> None:
        """Tell what it is to work on, once."""
        with contextlib.suppress(*_GONE):
            self._connection.send(assignment)
        threading.Thread(target=self._hire, daemon=True).start()

    def _hire(self) -> None:
        """Wait until it has imported everything; runs in a thread of its own."""
        try:
            self._first: Any = self._connection.recv()
        except _GONE:
            self.alive = False
        self.ready.set()

    def check(self, fingerprint: str) -> None:
        """See that it would do the same work, once it is ready.

        Raises
        ------
        HelperFaultError
            If it would not, or has failed.
        """
        if isinstance(self._first, Failed):
            raise HelperFaultError(self._first.text)
        if not isinstance(self._first, Hired) or self._first.fingerprint != fingerprint:
            raise HelperFaultError("a helper would do other work than this process")

    def send(self, message: Any) -> None:
        """Send a job; None sends it home."""
        self._connection.send(message)

    def receive(self) -> Any:
        """Wait for what it has done.

        Raises
        ------
        HelperFaultError
            If the suite failed there.
        EOFError, OSError
            If it has gone.
        """
        message = self._connection.recv()
        if isinstance(message, Failed):
            raise HelperFaultError(message.text)
        return message

    def kill(self) -> None:
        """End it, and with it the processes that it started."""
        self.alive = False
        self._process.kill()
        self._process.wait()


_waiting: list[Helper] = []


def let_helpers_get_ready() -> None:
    """Tell waiting helpers to import what they need, now that this process has.

    Earlier, they would take the processor from the fork server, which everybody waits for.
    """
    for helper in _waiting:
        helper.get_ready(GetReady(pairs(compiled=False)))


@contextlib.contextmanager
def preparing(number: int) -> Iterator[None]:
    """Start helpers that import torch while it is found out what they are to work on.

    Parameters
    ----------
    number : int
        How many; those that no crew has taken at the end are sent home.
    """
    _waiting.extend(Helper() for _ in range(number))
    try:
        yield
    finally:
        while _waiting:
            _waiting.pop().kill()


@dataclass(frozen=True)
class _Noted:
    """A job that a helper did; None in place of it where the helper's thread has ended."""

    job: Job | None
    done: Done | BaseException | None


@dataclass
class Crew:
    """Helpers, and this process, which does jobs as well.

    A helper that dies has its jobs done by others.

    Parameters
    ----------
    assignment : Assignment
    number : int
        Processes besides this one.
    stop : callable
        Whether somebody wants to stop; helpers are then ended at once.
    fingerprint : str
        Of the work that is shared.
    """

    assignment: Assignment
    number: int
    stop: Callable[[], bool]
    fingerprint: str = ""
    tampered: tuple[str, ...] = ()
    printed: int = 0
    head: str = ""
    _helpers: list[Helper] = field(default_factory=list)

    def __enter__(self) -> Self:
        for _ in range(self.number):
            self._helpers.append(_waiting.pop() if _waiting else Helper())
            self._helpers[-1].assign(self.assignment)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for helper in self._helpers:
            helper.kill()

    def work_off(
        self,
        jobs: Jobs,
        here: Callable[[Job], Done | None],
        note: Callable[[Job, Done], None],
        over: Callable[[], bool],
    ) -> None:
        """Do all jobs, here and in helpers, and note each, until it is over."""
        done: queue.SimpleQueue[_Noted] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=self._feed, args=(helper, jobs, done, over), daemon=True)
            for helper in self._helpers
            if helper.alive
        ]
        for thread in threads:
            thread.start()
        busy = len(threads)
        while not over():
            busy -= self._note_all(done, note, wait=False)
            job = None if over() else jobs.take()
            if job is not None:
                if (mine := here(job)) is not None:
                    note(job, mine)
            elif busy:
                busy -= self._note_all(done, note, wait=True)
            else:
                return
        self._wait_for(threads)

    def _wait_for(self, threads: list[threading.Thread]) -> None:
        """Let helpers end the jobs that they have, unless somebody wants to stop."""
        for thread in threads:
            while thread.is_alive():
                if self.stop():
                    for helper in self._helpers:
                        helper.kill()
                thread.join(_SLICE)

    def _note_all(
        self, done: queue.SimpleQueue[_Noted], note: Callable[[Job, Done], None], *, wait: bool
    ) -> int:
        """Note what helpers have done; give the number of helpers that have ended."""
        ended = 0
        with contextlib.suppress(queue.Empty):
            while True:
                noted = done.get(timeout=_SLICE) if wait else done.get_nowait()
                wait = False
                if isinstance(noted.done, BaseException):
                    raise noted.done
                if noted.job is None:
                    ended += 1
                elif noted.done is not None:
                    note(noted.job, noted.done)
        return ended

    def _feed(
        self,
        helper: Helper,
        jobs: Jobs,
        done: queue.SimpleQueue[_Noted],
        over: Callable[[], bool],
    ) -> None:
        """Give a helper jobs until there are none; runs in a thread of its own."""
        given: deque[Job] = deque()
        fault: BaseException | None = None
        try:
            while not helper.ready.wait(_SLICE):
                if over() or not jobs.left:
                    break
            while helper.ready.is_set() and helper.alive:
                helper.check(self.fingerprint)
                self._give(helper, jobs, given, over)
                if not given:
                    break
                result = helper.receive()
                done.put(_Noted(given.popleft(), result))
        except _GONE:
            helper.alive = False
            jobs.give_back(list(given))
        except Exception as error:
            fault = error
        done.put(_Noted(None, fault))

    def _give(
        self, helper: Helper, jobs: Jobs, given: deque[Job], over: Callable[[], bool]
    ) -> None:
        """Give a helper as many jobs as it should have."""
        while not over():
            if given and not (isinstance(given[-1], Explore) and len(given) < _AHEAD):
                return
            job = jobs.take()
            if job is None:
                return
            given.append(job)
            helper.send(job)

    def dismiss(self) -> None:
        """Send the helpers home, and learn what their targets printed and tampered with."""
        for helper in self._helpers:
            if not (helper.alive and helper.ready.is_set()):
                continue
            with contextlib.suppress(*_GONE):
                helper.send(None)
                told = helper.receive()
                assert isinstance(told, Dismissed)
                self.tampered += tuple(n for n in told.tampered if n not in self.tampered)
                self.printed += told.printed
                self.head = self.head or told.head
