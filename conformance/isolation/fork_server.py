"""A process that has imported torch and nothing foreign, and that forks the targets' processes.

Importing torch takes two seconds and forking takes none, so a target that crashes often is not
slow to judge. It is spawned, so nothing of the judges' process is in it, it runs no kernel, so it
has no threads that a fork would lose, and it never asks for CUDA, so its children may.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import sys
from contextlib import suppress
from typing import Final

REQUEST: Final = struct.Struct("=cq")
"""``f`` forks; ``s`` asks for the status of the process whose number follows."""
REPLY: Final = struct.Struct("=qq")
"""A process's number, and its exit status: its code, a signal's number negated, or RUNNING."""
RUNNING: Final = 2**32
DESCRIPTORS: Final = 6
"""Connection, memory out, memory in, marks, crashes, and where the target prints."""


def main(arguments: list[str]) -> None:
    """Serve until the other side hangs up.

    Parameters
    ----------
    arguments : list of str
        The inherited descriptor of the control socket.
    """
    from embconform.backends.parent import end_with_parent
    from embconform.conformance.isolation.process import prepare_to_serve

    end_with_parent()
    control = socket.socket(fileno=int(arguments[0]))
    prepare_to_serve()
    children: dict[int, int] = {}
    while True:
        message, numbers = _receive(control)
        if len(message) < REQUEST.size:
            os._exit(0)
        kind, child = REQUEST.unpack(message)
        if kind == b"f":
            child = _fork(control, numbers)
            children[child] = RUNNING
            control.sendall(REPLY.pack(child, RUNNING))
        else:
            control.sendall(REPLY.pack(child, _status(child, children)))


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Read a request and the descriptors that came with it."""
    numbers = array.array("i")
    room = socket.CMSG_LEN(DESCRIPTORS * numbers.itemsize)
    message, extra, _, _ = control.recvmsg(REQUEST.size, room)
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return message, list(numbers)


def _fork(control: socket.socket, numbers: list[int]) -> int:
    child = os.fork()
    if child:
        for number in numbers:
            os.close(number)
        return child
    from embconform.conformance.isolation.process import serve

    control.close()
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
