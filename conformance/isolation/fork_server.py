"""A process that has imported torch and nothing foreign, and that forks the targets' processes.

Helpers of a run have a line to it each, so that torch is imported once.

Importing torch takes two seconds and forking takes none, so a target that crashes often is not
slow to judge. It is spawned, so nothing of the judges' process is in it, it runs no kernel, so it
has no threads that a fork would lose, and it never asks for CUDA, so its children may.
"""

from __future__ import annotations

import array
import os
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from typing import Final

REQUEST: Final = struct.Struct("=cq")
"""``f`` forks; ``s`` asks for the status of the process whose number follows; ``l`` brings another
line, for another process that asks, and has no reply."""
REPLY: Final = struct.Struct("=qq")
"""A process's number, and its exit status: its code, a signal's number negated, or RUNNING."""
RUNNING: Final = 2**32
_PATIENCE: Final = 1.0
DESCRIPTORS: Final = 6
"""Connection, memory out, memory in, marks, crashes, and where the target prints."""


def main(arguments: list[str]) -> None:
    """Serve until the process that started this one hangs up.

    Parameters
    ----------
    arguments : list of str
        The inherited descriptor of its control socket.
    """
    from embconform.backends.parent import end_with_parent
    from embconform.conformance.collector import look_less_often
    from embconform.conformance.isolation.process import prepare_to_serve

    end_with_parent()
    look_less_often()
    first = Line(socket.socket(fileno=int(arguments[0])))
    prepare_to_serve()
    lines = [first]
    while True:
        for ready in select.select(lines, [], [])[0]:
            if ready.serve(lines):
                continue
            if ready is first:
                os._exit(0)
            ready.close()
            lines.remove(ready)


class Line:
    """Somebody who asks for processes.

    Parameters
    ----------
    control : socket.socket
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, int] = {}

    def fileno(self) -> int:
        """Give the descriptor to wait for."""
        return self._control.fileno()

    def serve(self, lines: list[Line]) -> bool:
        """Do what is asked next; tell whether anybody is there."""
        message, numbers = _receive(self._control)
        if len(message) < REQUEST.size:
            return False
        kind, child = REQUEST.unpack(message)
        if kind == b"l":
            lines.append(Line(socket.socket(fileno=numbers[0])))
            return True
        if kind == b"f":
            child = _fork(lines, numbers)
            self._children[child] = RUNNING
        with suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(REPLY.pack(child, _status(child, self._children)))
        return True

    def close(self) -> None:
        """End the processes of one who has gone, with all that they started."""
        from embconform.conformance.isolation.groups import end_group

        self.hang_up()
        for child in self._children:
            if _status(child, self._children) == RUNNING:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                end_group(child, _PATIENCE)

    def hang_up(self) -> None:
        """Close this end."""
        self._control.close()


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Read a request and the descriptors that came with it."""
    numbers = array.array("i")
    room = socket.CMSG_LEN(DESCRIPTORS * numbers.itemsize)
    try:
        message, extra, _, _ = control.recvmsg(REQUEST.size, room)
    except ConnectionResetError:  # gone, with replies that it had not read
        return b"", []
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return message, list(numbers)


def _fork(lines: list[Line], numbers: list[int]) -> int:
    child = os.fork()
    if child:
        for number in numbers:
            os.close(number)
        return child
    from embconform.conformance.isolation.process import serve

    for line in lines:
        line.hang_up()
    os.setsid()
    *conversation, printed = numbers
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, standard in ((nothing, 0), (printed, 1), (printed, 2)):
        os.dup2(number, standard)
    os.close(printed)
    os.close(nothing)
    serve(conversation)
    os._exit(0)


def _status(child: int, children: dict[int, int]) -> int:
    """Give a child's exit status; RUNNING where there is none yet."""
    if children.get(child) == RUNNING:
        with suppress(ChildProcessError):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                children[child] = os.waitstatus_to_exitcode(status)
    return children.get(child, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
