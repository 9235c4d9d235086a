"""Keep what foreign code prints away from our own output, at the level of file descriptors."""

from __future__ import annotations

import fcntl
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

LIMIT: Final = 64 * 1024
_CHUNK: Final = 1 << 16
_PATIENCE: Final = 1.0


class Captured:
    """What was printed while the output was captured.

    Attributes
    ----------
    terminal : TextIO
        The stderr from before, for a progress bar.
    total_bytes : int
        How much was written to stdout and stderr together.
    """

    def __init__(self, terminal: TextIO, source: int, limit: int = LIMIT) -> None:
        self.terminal = terminal
        self.total_bytes = 0
        self._source = source
        self._kept = bytearray()
        self._limit = limit
        self._wake_read, self._wake_write = os.pipe()
        self._drained = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="captured-output", daemon=True)
        self._thread.start()

    @property
    def head(self) -> str:
        """The beginning of what was written, as text."""
        return self._kept.decode("utf-8", "replace")

    def finish(self) -> None:
        """Wait until everything that was written so far is counted."""
        with suppress(BrokenPipeError):  # the pipe ended before we asked
            os.write(self._wake_write, b"!")
        os.close(self._wake_write)
        self._drained.wait(2 * _PATIENCE)

    def _drain(self) -> None:
        """Count until woken, then only keep the pipe empty for processes that still hold it."""
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        open_ended = True
        while open_ended:
            if self._wake_read in {number for number, _ in poll.poll()}:
                open_ended = self._count_the_rest()
                break
            open_ended = self._count()
        self._drained.set()
        with suppress(OSError):
            while open_ended and os.read(self._source, _CHUNK):
                pass
        os.close(self._source)
        os.close(self._wake_read)

    def _count(self) -> bool:
        """Read once; False at the end of the pipe."""
        data = os.read(self._source, _CHUNK)
        self.total_bytes += len(data)
        self._kept += data[: max(0, self._limit - len(self._kept))]
        return bool(data)

    def _count_the_rest(self) -> bool:
        """Read what the pipe holds now; False at its end."""
        end = time.monotonic() + _PATIENCE
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        while time.monotonic() < end and poll.poll(0):
            if not self._count():
                return False
        return True


@contextmanager
def captured_output(limit: int = LIMIT) -> Iterator[Captured]:
    """Redirect stdout and stderr, of this process and of those it starts, into a drained pipe.

    Parameters
    ----------
    limit : int
        How many bytes to keep; the rest is counted.

    Yields
    ------
    Captured
    """
    streams = sys.stdout, sys.stderr
    _flush()
    saved = _save(1), _save(2)
    terminal = _terminal(saved[1])
    source, sink = os.pipe()
    captured = Captured(terminal, source, limit)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)
    sys.stdout, sys.stderr = _on(streams[0], 1), _on(streams[1], 2)
    try:
        yield captured
    finally:
        _flush()
        _restore(1, saved[0])
        _restore(2, saved[1])
        sys.stdout, sys.stderr = _alive(streams[0], 1), _alive(streams[1], 2)
        captured.finish()
        with suppress(OSError, ValueError):
            terminal.close()


def _save(number: int) -> int | None:
    """Duplicate a descriptor; a closed one is plugged, so that no pipe takes its number."""
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        plug = os.open(os.devnull, os.O_RDWR)
        if plug != number:
            os.dup2(plug, number)
            os.close(plug)
        return None


def _restore(number: int, saved: int | None) -> None:
    """Put a descriptor back as it was."""
    if saved is None:
        with suppress(OSError):
            os.close(number)
        return
    os.dup2(saved, number)
    os.close(saved)


def _terminal(saved: int | None) -> TextIO:
    """Open a second way to the stderr from before."""
    number = os.open(os.devnull, os.O_WRONLY) if saved is None else os.dup(saved)
    return os.fdopen(number, "w", encoding="utf-8", errors="replace", buffering=1)


def _on(stream: TextIO | None, number: int) -> TextIO:
    """Give a stream that writes to the descriptor: the present one where it does."""
    if stream is not None and _writes_to(stream, number):
        return stream
    return _fresh(number)


def _alive(stream: TextIO | None, number: int) -> TextIO | None:
    """Give the stream, or a new one where foreign code has closed it."""
    if stream is not None and getattr(stream, "closed", False):
        return _fresh(number)
    return stream


def _fresh(number: int) -> TextIO:
    """Make a stream on the descriptor that does not close it and outlives the capture."""
    return os.fdopen(
        number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def _writes_to(stream: TextIO, number: int) -> bool:
    """Tell whether the stream is a live one on the descriptor."""
    try:
        return not stream.closed and stream.fileno() == number
    except (AttributeError, OSError, ValueError):
        return False


def _flush() -> None:
    """Flush both streams, whatever has become of them."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
