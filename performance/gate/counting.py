"""Counting instructions in a worker that runs under Valgrind: a forked process for each side."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import cycle, islice
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch

from embconform.backends.backend import TargetError
from embconform.backends.catalogue import describe
from embconform.backends.parent import end_with_parent
from embconform.performance.gate.benchmarks import Benchmark
from embconform.performance.gate.messages import Count, Counted
from embconform.performance.gate.seat import Seat
from embconform.performance.passes import ROTATION, Inputs, Work, make_inputs, prepare
from embconform.performance.workloads import Workload, fit

OUT: Final = "counts"
"""What the names of Valgrind's files begin with; its process and a number follow."""
_BLOCK: Final = 2 * ROTATION
"""Calls that are counted together: each index tensor twice."""
_MOST_BLOCKS: Final = 12
_BYTES: Final = 2**24
"""Calls stop when they have moved this much: under Valgrind they take a hundred times as long."""
_TOTAL: Final = re.compile(r"^totals: (\d+)", re.MULTILINE)


def save_inputs(workload: Workload, seed: int, folder: str) -> None:
    """Draw a workload's inputs for a worker under Valgrind, which would take a minute for it.

    Parameters
    ----------
    workload : Workload
    seed : int
    folder : str
    """
    drawn = make_inputs(fit(workload), "cpu", seed)
    tensors = {"indices": drawn.indices, "weight": drawn.weight, "upstream": drawn.upstream}
    torch.save(tensors, Path(folder) / workload.name)


@cache
def _inputs(workload: Workload, folder: str) -> Inputs:
    """Map the tensors into memory: a fork that writes to them has its own."""
    found = torch.load(Path(folder) / workload.name, mmap=True, weights_only=True)
    ids = [indices.numpy() for indices in found["indices"]]
    return Inputs(fit(workload), ids, **found)


def count(message: Count, search_path: tuple[str, ...]) -> Counted:
    """Import a side in a forked process, and count there.

    Valgrind takes half a minute to get through torch's imports, and a fork has them for nothing.

    Parameters
    ----------
    message : Count
    search_path : tuple of str
        As :class:`Seat` takes it.

    Returns
    -------
    Counted

    Raises
    ------
    TargetError
        If the side can't be imported under Valgrind, or ends the process.
    """
    inputs = {b.name: _inputs(b.workload, message.folder) for b in message.benchmarks}
    _instrument()
    ours, theirs = Pipe(duplex=False)
    child = get_context("fork").Process(
        target=_in_child, args=(theirs, message, search_path, inputs), daemon=True
    )
    child.start()
    theirs.close()
    try:
        answer: Counted | TargetError = ours.recv()
    except EOFError:
        child.join()
        raise TargetError(_ending(child.exitcode)) from None
    child.join()
    if isinstance(answer, TargetError):
        raise answer
    return answer


@cache
def _instrument() -> None:
    """Switch counting on: until then imports and inputs take a quarter of the time."""
    command = ["callgrind_control", "-i", "on", str(os.getpid())]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _ending(code: int | None) -> str:
    if code == -signal.SIGILL:
        return "it uses an instruction of the processor that Valgrind doesn't know"
    return f"its process ended with exit code {code} under Valgrind"


def _in_child(
    answers: Connection, message: Count, search_path: tuple[str, ...], inputs: Mapping[str, Inputs]
) -> None:
    end_with_parent()
    try:
        answers.send(_counted(message, search_path, inputs))
    except TargetError as error:
        answers.send(error)


def _counted(message: Count, search_path: tuple[str, ...], inputs: Mapping[str, Inputs]) -> Counted:
    """Count one benchmark after another; foreign code may raise anything."""
    seat = Seat(message.side, search_path)
    calls: dict[str, float] = {}
    wrong: dict[str, str] = {}
    with seat.active():
        for benchmark in message.benchmarks:
            try:
                work = prepare(seat.backend, benchmark.chosen, inputs[benchmark.name])
                order = list(islice(cycle(inputs[benchmark.name].indices), _BLOCK))
                blocks = _blocks(benchmark)
                calls[benchmark.name] = _a_call(work, order, blocks, message.folder)
            except TargetError:
                raise
            except (Exception, SystemExit) as error:
                wrong[benchmark.name] = describe(error)
    return Counted(calls, wrong)


def _blocks(benchmark: Benchmark) -> int:
    """Tell how many blocks of calls are counted."""
    return max(2, min(_MOST_BLOCKS, _BYTES // (benchmark.moved * _BLOCK)))


def _a_call(work: Work, order: Sequence[torch.Tensor], blocks: int, folder: str) -> float:
    """Count the instructions of a call, less those of a call that does nothing.

    The least of the blocks: the first ones warm up, and what happens once in a while, such as a
    heap that grows, is in others.
    """
    run = work.run
    if (wait := work.synchronize) is not None:

        def run(indices: torch.Tensor) -> Any:
            work.run(indices)
            wait()

    gc.collect()
    whole = min(_total(run, work.before, order, folder) for _ in range(blocks))
    empty = min(_total(_nothing, None, order, folder) for _ in range(blocks))
    if not empty:
        raise TargetError("Valgrind counted nothing: callgrind_control can't reach it")
    return (whole - empty) / len(order)


def _nothing(_: torch.Tensor) -> None:
    """Cost what it takes to call a function and to switch the counting on and off."""


def _total(
    run: Callable[[torch.Tensor], Any],
    before: Callable[[torch.Tensor], None] | None,
    order: Sequence[torch.Tensor],
    folder: str,
) -> int:
    """Count while `run` runs; an output is dropped while it counts, as a timer drops it."""
    toggle, ends = torch._C._valgrind_toggle, [torch._C._valgrind_toggle] * len(order)
    ends[-1] = torch._C._valgrind_toggle_and_dump_stats
    for indices, end in zip(order, ends, strict=True):
        if before is not None:
            before(indices)
        toggle()
        run(indices)
        end()
    return _read(Path(folder))


def _read(folder: Path) -> int:
    """Read what was dumped, and take it away."""
    files = list(folder.glob(f"{OUT}.{os.getpid()}.*"))
    found = [_TOTAL.search(file.read_text()) for file in files]
    for file in files:
        file.unlink()
    return sum(int(total[1]) for total in found if total)
