"""The judges' side of the process that forks the targets' processes."""

from __future__ import annotations

import atexit
import socket
import subprocess
import sys
from typing import Final

from embconform.conformance.isolation.fork_server import REPLY, REQUEST, RUNNING

_SERVER: Final = "embconform.conformance.isolation.fork_server"


class Forks:
    """A line to a fork server.

    Parameters
    ----------
    control : socket.socket
        The other end of which the server reads.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._awaited = 0
        self._forked: list[int] = []

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        try:
            waiting = self._control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(waiting)

    def fork(self, descriptors: list[int]) -> int:
        """Ask for a process; return the ticket for its number, which :meth:`number` reads."""
        socket.send_fds(self._control, [REQUEST.pack(b"f", 0)], descriptors)
        self._awaited += 1
        return len(self._forked) + self._awaited - 1

    def number(self, ticket: int) -> int:
        """Wait for the number of a process that was asked for."""
        while len(self._forked) <= ticket:
            self._forked.append(self._reply()[0])
            self._awaited -= 1
        return self._forked[ticket]

    def status(self, number: int) -> int | None:
        """Give a process's exit status as subprocess does; None while it runs."""
        self.number(len(self._forked) + self._awaited - 1)
        self._control.sendall(REQUEST.pack(b"s", number))
        code = self._reply()[1]
        return None if code == RUNNING else code

    def line(self) -> socket.socket:
        """Make another line to the server, for another process; what comes over it has no reply."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [REQUEST.pack(b"l", 0)], [theirs.fileno()])
        return ours

    def _reply(self) -> tuple[int, int]:
        data = self._control.recv(REPLY.size, socket.MSG_WAITALL)
        if len(data) < REPLY.size:
            raise RuntimeError("the process that starts targets has ended")
        number, status = REPLY.unpack(data)
        return number, status


class ForkServer(Forks):
    """A fork server of one's own; one is enough for a process.

    It leads a process group, so that it gets no signal from the terminal.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(ours)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _SERVER, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        atexit.register(self.close)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it; its children end with it."""
        atexit.unregister(self.close)
        self._control.close()
        self._process.kill()
        self._process.wait()


_servers: list[Forks] = []


def server() -> Forks:
    """Give the server of this process, a new one where it has died; it imports torch meanwhile."""
    if not (_servers and _servers[-1].alive):
        _servers.append(ForkServer())
    return _servers[-1]


def borrow(descriptor: int) -> None:
    """Use the server of another process, which has made a :meth:`Forks.line` for this one.

    Parameters
    ----------
    descriptor : int
        Of the line, inherited.
    """
    _servers.append(Forks(socket.socket(fileno=descriptor)))
