"""The target's process: imports the target, runs what it is sent, and answers with what it saw."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from embconform.backends.parent import end_with_parent
from embconform.conformance import marker
from embconform.conformance.isolation.messages import (
    Ending,
    Fault,
    Finish,
    Hello,
    ObserveCases,
    ObserveProbe,
    Outcomes,
    Ready,
    Seen,
    Unusable,
)
from embconform.conformance.isolation.transport import MARK, Channel, Memory
from embconform.conformance.outcome import Lost, Outcome

if TYPE_CHECKING:
    from embconform.conformance.running.in_process import InProcess


def prepare_to_serve() -> None:
    """Import all that a target's process needs, the target excepted.

    No more than that: a backward pass would start a thread for each CUDA device, and asking for one
    starts its driver, and neither survives a fork.
    """
    import torch.fx.experimental.symbolic_shapes  # noqa: F401 - by torch.autograd.backward

    from embconform.conformance.probes.registry import probes

    probes()


def serve(descriptors: list[int]) -> None:
    """Serve one target until the other side hangs up.

    Parameters
    ----------
    descriptors : list of int
        The connection, shared memory out and in, marks, and where a crash writes its traceback.
    """
    connection, outgoing, incoming, marks, crashes = descriptors
    end_with_parent()
    faulthandler.enable(crashes, all_threads=False)
    board = Memory(marks).view(MARK.size)
    marker.listen(lambda position: MARK.pack_into(board, 0, position))
    channel = Channel(Connection(connection), Memory(outgoing), Memory(incoming), distrust=False)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(channel, channel.receive())
    os._exit(0)  # foreign threads and atexit hooks have no say in it


def _serve(channel: Channel, hello: Hello) -> None:
    from embconform.backends.backend import TargetError
    from embconform.backends.devices import check_device
    from embconform.backends.targets import resolve
    from embconform.conformance.isolation.tampering import Seal
    from embconform.conformance.running.in_process import InProcess

    os.chdir(hello.folder)
    os.environ.clear()
    os.environ.update(hello.environment)
    sys.path[:] = hello.search_path
    seal = Seal()
    if hello.device == "cpu":
        _limit_memory(hello.memory)
    try:
        backend = resolve(hello.target)
        device = hello.device or backend.capabilities.own_device
        if device == "cpu" and hello.device is None:
            _limit_memory(hello.memory)
        check_device(hello.target, backend.capabilities, device)
        runner = InProcess(backend, device)
        runner.prepare()
        channel.send(Ready(runner.description, runner.environment, device))
    except TargetError as error:
        channel.send(Unusable(str(error)))
        return
    except Exception:
        channel.send(Fault(traceback.format_exc()))
        return
    while True:
        request = channel.receive()
        if isinstance(request, Finish):
            channel.send(Ending(seal.broken()))
            return
        channel.send(_answer(runner, request))
        if runner.ruined:
            channel.send(Ending(seal.broken()))
            return


def _answer(runner: InProcess, request: Any) -> Any:
    try:
        if isinstance(request, ObserveCases):
            return Outcomes(tuple(_outcomes(runner, request)))
        assert isinstance(request, ObserveProbe)
        seen = runner.probe(request.name, request.profile, request.seed, request.skip)
        return Seen(seen, runner.ruined)
    except Exception:
        return Fault(traceback.format_exc())
    except BaseException as error:  # only the target raises these: no signal reaches this process
        return Lost("crash", f"raised {type(error).__name__}", -1)


def _outcomes(runner: InProcess, request: ObserveCases) -> Iterator[Outcome]:
    for number, (case, parallel) in enumerate(request.cases):
        marker.begin(number)
        yield runner.observe(case, parallel=parallel)
        if runner.ruined:
            break
    marker.begin(0)


def _limit_memory(allowed: int | None) -> None:
    """Let allocations fail beyond a limit, before the machine starts to swap.

    On the CPU alone: CUDA reserves more addresses than there is memory.
    """
    if allowed is None or sys.platform != "linux":
        return
    import resource

    import psutil

    now = psutil.Process().memory_info().vms
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = now + allowed if hard == resource.RLIM_INFINITY else min(now + allowed, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
