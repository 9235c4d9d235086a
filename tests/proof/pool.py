"""Processes that do one task after another; a dead one costs the task that it was at."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any, Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
_SPAWN = get_context("spawn")


@dataclass(frozen=True)
class Died:
    """Stands for the result of a task whose process ended, or that raised.

    Attributes
    ----------
    why : str
        One line.
    """

    why: str


class _Worker(Generic[Task]):
    """A process, our end of its pipe, and the task it is at."""

    def __init__(self, function: Callable[[Task], Any]) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task | None = None

    def give(self, task: Task) -> None:
        self.task = task
        with suppress(OSError):  # a dead process is found out when its answer is awaited
            self.pipe.send(task)

    def answer(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Died(f"its process ended with exit code {self.process.exitcode}")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def each(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[tuple[Task, Result | Died]]:
    """Do tasks in processes of their own, which are started by spawn.

    Parameters
    ----------
    function : callable
        Of a module, so that it can be pickled; it runs with torch on one thread, and nothing that
        it prints is shown.
    tasks : sequence
        What it is called with.
    workers : int
        How many processes.

    Yields
    ------
    tuple
        A task and its result, or a :class:`Died`, as they come. Whatever way the caller leaves,
        no process is left.
    """
    waiting = iter(tasks)
    with _workers(function, min(workers, len(tasks))) as crew:
        for worker in crew:
            worker.give(next(waiting))
        while busy := {worker.pipe: worker for worker in crew if worker.task is not None}:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker = busy[pipe]
                task, result = worker.task, worker.answer()
                assert task is not None
                worker.task = None
                following = next(waiting, None)
                if not worker.process.is_alive():
                    worker.end()
                    crew.remove(worker)
                    if following is not None:
                        worker = _Worker(function)
                        crew.append(worker)
                if following is not None:
                    worker.give(following)
                yield task, result


@contextmanager
def _workers(function: Callable[[Task], Any], number: int) -> Iterator[list[_Worker[Task]]]:
    crew: list[_Worker[Task]] = []
    try:
        while len(crew) < number:
            crew.append(_Worker(function))
        yield crew
    finally:
        for worker in crew:
            worker.end()


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    """Do tasks until the pipe or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    Thread(target=_die_with_the_parent, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    import torch

    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        while True:
            task = pipe.recv()
            try:
                result = function(task)
            except Exception as error:
                result = Died(f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])
            pipe.send(result)


def _die_with_the_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
