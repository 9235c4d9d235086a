"""The judges' side of a target's process: start it, ask it, watch it, end it."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import struct
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Final

import psutil

from embconform.conformance.isolation.forking import server
from embconform.conformance.isolation.groups import end_group
from embconform.conformance.isolation.messages import Hello
from embconform.conformance.isolation.transport import MARK, Channel, Memory
from embconform.conformance.outcome import Lost

_SLICE: Final = 0.2
_PATIENCE: Final = 5.0
_INSTALLED: Final = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
_KEPT: Final = 64 * 1024
_BROKEN: Final = (EOFError, OSError, pickle.UnpicklingError, struct.error, AttributeError)
STOPPED: Final = Lost("timeout", "the run was stopped", -1)
"""What comes of a question that somebody did not want to wait for."""


class Printed:
    """What targets printed: how much, and how it began."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self._kept = bytearray()

    @property
    def head(self) -> str:
        """The beginning, as text."""
        return self._kept.decode("utf-8", "replace")

    def drain(self, source: int) -> None:
        """Count what comes until the pipe ends."""
        with contextlib.suppress(OSError):
            while data := os.read(source, 1 << 16):
                self.total_bytes += len(data)
                self._kept += data[: max(0, _KEPT - len(self._kept))]
        os.close(source)


class Worker:
    """One process with the target in it.

    It leads a process group, so that what it starts ends with it, and it gets no signal from the
    terminal.

    Parameters
    ----------
    hello : Hello
    printed : Printed
        Where its output is counted.
    """

    def __init__(self, hello: Hello, printed: Printed) -> None:
        ours, theirs = Pipe()
        up, down, self._marks, self._crashes = (Memory() for _ in range(4))
        self._board = self._marks.view(MARK.size, grow=True)
        MARK.pack_into(self._board, 0, -1)
        source, sink = os.pipe()
        given = [theirs.fileno(), up.number, down.number]
        given += [self._marks.number, self._crashes.number, sink]
        self._server = server()
        self._ticket = self._server.fork(given)
        os.close(sink)
        theirs.close()
        threading.Thread(target=printed.drain, args=(source,), daemon=True).start()
        self._memory_limit = hello.memory
        self._channel = Channel(ours, down, up, distrust=True)
        self._ended = False
        self.slowest = 0.0
        """Seconds of the slowest step that ended."""
        with contextlib.suppress(*_BROKEN):
            self._channel.send(hello)

    @property
    def number(self) -> int:
        """The process's number; waits until it has one."""
        return self._server.number(self._ticket)

    def ask(self, message: Any, seconds: float, stop: Callable[[], bool] = lambda: False) -> Any:
        """Send a message and wait for the answer.

        Parameters
        ----------
        message : object
        seconds : float
            How long to wait since the last mark.
        stop : callable
            Asked now and then; the process is ended where it says yes.

        Returns
        -------
        object
            The answer, or a Lost where there is none; the process has then ended.
        """
        MARK.pack_into(self._board, 0, -1)
        try:
            self._channel.send(message)
        except _BROKEN:
            return self._lost()
        return self.answer(seconds, stop)

    def answer(self, seconds: float, stop: Callable[[], bool] = lambda: False) -> Any:
        """Wait for an answer; as :meth:`ask`."""
        mark, since = self._mark(), time.monotonic()
        try:
            while not self._channel.connection.poll(_SLICE):
                now = time.monotonic()
                if self._mark() != mark:
                    self.slowest = max(self.slowest, now - since)
                    mark, since = self._mark(), now
                if (
                    self._server.status(self.number) is not None
                    and not self._channel.connection.poll()
                ):
                    return self._lost()
                if now - since > seconds:
                    return self._end(Lost("timeout", f"no answer within {seconds:.3g} s", mark))
                if self._too_large():
                    limit = (self._memory_limit or 0) / 2**30
                    detail = f"the process used more than {limit:.1f} GiB of memory"
                    return self._end(Lost("crash", detail, mark))
                if stop():
                    return self._end(replace(STOPPED, mark=mark))
            self.slowest = max(self.slowest, time.monotonic() - since)
            answer = self._channel.receive()
            return replace(answer, mark=self._mark()) if isinstance(answer, Lost) else answer
        except _BROKEN as error:
            return self._lost(error)

    def close(self) -> None:
        """End the process and everything that it started, and wait for that."""
        self.kill()
        with contextlib.suppress(RuntimeError, OSError):
            self._wait(_PATIENCE)
            end_group(self.number, _PATIENCE)

    def gone(self) -> bool:
        """Tell whether the process has ended, and everything that it started."""
        if self._wait(0.0) is None:
            return False
        end_group(self.number, _PATIENCE)
        return True

    def kill(self) -> None:
        """End the process, without waiting for that."""
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError, RuntimeError, OSError):
            if self._server.status(self.number) is None:
                os.kill(self.number, signal.SIGKILL)
        self._channel.connection.close()
        memories = (self._channel.outgoing, self._channel.incoming, self._marks, self._crashes)
        for memory in memories:
            memory.close()

    def _wait(self, seconds: float) -> int | None:
        """Wait for the process's end; give its exit status, or None where it goes on."""
        until = time.monotonic() + seconds
        while (code := self._server.status(self.number)) is None and time.monotonic() < until:
            time.sleep(0.002)
        return code

    def _mark(self) -> int:
        return int(MARK.unpack_from(self._board, 0)[0])

    def _too_large(self) -> bool:
        if self._memory_limit is None:
            return False
        try:
            return bool(psutil.Process(self.number).memory_info().rss > self._memory_limit)
        except psutil.Error:
            return False

    def _lost(self, error: BaseException | None = None) -> Lost:
        """Say how the process died; one that lives on but can't be understood is ended."""
        gone = error is None or isinstance(error, EOFError | OSError)
        code = self._wait(_PATIENCE if gone else 0.0)
        if code is None:
            detail = f"the process sent what can't be read ({type(error).__name__})"
        elif code < 0:
            detail = f"the process died of {signal.Signals(-code).name}{self._where()}"
        else:
            detail = f"the process ended itself with exit code {code}"
        return self._end(Lost("crash", detail, self._mark()))

    def _end(self, lost: Lost) -> Lost:
        self.close()
        return lost

    def _where(self) -> str:
        """Name the Python line at which a crash happened, as faulthandler wrote it."""
        size = os.fstat(self._crashes.number).st_size
        text = os.pread(self._crashes.number, size, 0).decode("utf-8", "replace")
        places = re.findall(r'File "([^"]+)", line (\d+) in (\S+)', text)
        users = [place for place in places if not place[0].startswith(_INSTALLED)]
        for file, line, function in users[:1] or places[:1]:
            return f" at {Path(file).name}:{line} in {function}"
        return ""
