"""A helper: a process with judges, oracle and an isolated target of its own, that does jobs."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from embconform.conformance.cases.strata import Pairs, take_pairs
from embconform.conformance.isolation.limits import Limits
from embconform.conformance.options import RunOptions


@dataclass(frozen=True)
class Assignment:
    """What a helper works on.

    Attributes
    ----------
    target : str
        As the user named it.
    limits : Limits
    options : RunOptions
    search_path : tuple of str
        ``sys.path`` of the process that asks.
    scratch : str
        A folder for Hypothesis's own files.
    """

    target: str
    limits: Limits
    options: RunOptions
    search_path: tuple[str, ...]
    scratch: str


@dataclass(frozen=True)
class GetReady:
    """What a helper may do before it is known what it works on, with what was made already."""

    pairs: Pairs


@dataclass(frozen=True)
class Hired:
    """A helper is ready; the fingerprint of the work that it would do."""

    fingerprint: str


@dataclass(frozen=True)
class Failed:
    """The suite failed in a helper; a traceback."""

    text: str


@dataclass(frozen=True)
class Dismissed:
    """What a helper says at its end: what was tampered with, and what the target printed."""

    tampered: tuple[str, ...]
    printed: int
    head: str


def main(arguments: list[str]) -> None:
    """Do jobs until there are no more.

    Parameters
    ----------
    arguments : list of str
        The inherited descriptors of a connection, and of a line to the fork server.
    """
    from embconform.backends.parent import end_with_parent
    from embconform.conformance.collector import look_less_often
    from embconform.conformance.isolation.forking import borrow
    from embconform.conformance.running.readiness import get_ready

    end_with_parent()
    look_less_often()
    connection, line = Connection(int(arguments[0])), int(arguments[1])
    borrow(line)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            message = connection.recv()
            if isinstance(message, GetReady):
                take_pairs(message.pairs, compiled=False)
                get_ready()
                message = connection.recv()
            _work(connection, message)
        except Exception:
            connection.send(Failed(traceback.format_exc()))


def _work(connection: Connection, assignment: Assignment) -> None:
    from hypothesis.configuration import set_hypothesis_home_dir

    from embconform.conformance.isolation.isolated import Isolated
    from embconform.conformance.running.course import Performer
    from embconform.conformance.running.explorer import Explorer

    sys.path[:] = assignment.search_path
    scratch = Path(assignment.scratch) / str(os.getpid())
    scratch.mkdir()
    set_hypothesis_home_dir(scratch)
    options = assignment.options
    with Isolated(assignment.target, options.device, assignment.limits) as isolated:
        explorer = Explorer(isolated, options)
        connection.send(Hired(explorer.fingerprint))
        perform = Performer(explorer)
        while (job := connection.recv()) is not None:
            connection.send(perform(job))
        tampered = isolated.finish()
        printed = isolated.printed
        connection.send(Dismissed(tampered, printed.total_bytes, printed.head))


if __name__ == "__main__":
    # under its name as a module, so that what is pickled has one name in both processes
    from embconform.conformance.running.helper_process import main as _main

    _main(sys.argv[1:])
