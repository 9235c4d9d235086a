"""Processes on this machine that hold a sharded table together, and what they do on request.

Rank 0 is the process that is judged; the others, which :mod:`rank_process` runs, do as it says.
They are started here, or by torchrun.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist

_IDLE: Final = timedelta(days=1)
BUSY: Final = timedelta(seconds=30)
_PROCESS: Final = "embconform.backends.rank_process"
_LOST: Final = "gloo/transport"
_UNDER_TORCHRUN: Final = "TORCHELASTIC_RUN_ID"


@dataclass(frozen=True)
class Forward:
    """A lookup.

    Attributes
    ----------
    ticket : int
        Names it in what follows.
    forgotten : tuple of int
        Earlier ones that nobody asks for again.
    style : str
        ``row`` or ``column``.
    indices, weight : Tensor
    options : dict
    """

    ticket: int
    forgotten: tuple[int, ...]
    style: str
    indices: torch.Tensor
    weight: torch.Tensor
    options: dict[str, Any]


@dataclass(frozen=True)
class Backward:
    """A backward pass through the lookup `ticket`."""

    ticket: int
    upstream: torch.Tensor


Request = Forward | Backward | None


class Rank:
    """One process's part of the work.

    Parameters
    ----------
    size : int
        Number of processes; their default group must be there.
    """

    def __init__(self, size: int) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        self.mesh = init_device_mesh("cpu", (size,))
        self.control = dist.new_group(timeout=_IDLE, backend="gloo")
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def serve(self) -> None:
        """Do as rank 0 says until it says None or is gone."""
        with suppress(RuntimeError):
            while (request := self._exchange(None)) is not None:
                with suppress(Exception):  # rank 0 fails the same way
                    self._do(request)

    def ask(self, request: Request) -> torch.Tensor | None:
        """Have all ranks do something; rank 0 gives the whole result."""
        self._exchange(request)
        return self._do(request)

    def _exchange(self, request: Request) -> Request:
        box = [request]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def _do(self, request: Request) -> torch.Tensor | None:
        match request:
            case Forward():
                return self._forward(request)
            case Backward():
                weight, output = self._kept[request.ticket]
                (gradient,) = torch.autograd.grad(
                    output, weight, request.upstream, retain_graph=True
                )
                return gradient.full_tensor()  # type: ignore[attr-defined, no-any-return]
        return None

    def _forward(self, request: Forward) -> torch.Tensor:
        from torch.distributed.tensor import Replicate
        from torch.distributed.tensor.parallel import (
            ColwiseParallel,
            RowwiseParallel,
            parallelize_module,
        )

        styles: dict[str, Any] = {
            "row": RowwiseParallel(input_layouts=Replicate()),
            "column": ColwiseParallel(output_layouts=Replicate()),
        }
        for ticket in request.forgotten:
            self._kept.pop(ticket, None)
        table = request.weight.clone()
        rows, width = table.shape
        module = torch.nn.Embedding(rows, width, _weight=table, **request.options)
        parallelize_module(module, self.mesh, styles[request.style])
        with torch.enable_grad():
            output = module(request.indices)
        self._kept[request.ticket] = (module.weight, output)
        return output.detach().clone()  # type: ignore[no-any-return]


class World:
    """The ranks, seen from rank 0.

    Parameters
    ----------
    size : int
        How many there are, this process included.
    """

    def __init__(self, size: int) -> None:
        self.size, self._helpers = size, list[subprocess.Popen[bytes]]()
        if not under_torchrun():
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            store: Any = dist.TCPStore(  # type: ignore[attr-defined]
                "127.0.0.1", 0, is_master=True, wait_for_workers=False
            )
            self._helpers = [_start(rank, size, store.port) for rank in range(1, size)]
            dist.init_process_group("gloo", store=store, rank=0, world_size=size, timeout=BUSY)
        else:
            dist.init_process_group("gloo", timeout=BUSY)
        self._rank = Rank(size)
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, request: Request) -> torch.Tensor | None:
        """Have all ranks do something; give the whole result.

        Raises
        ------
        Exception
            What it raises in this process. Where the ranks have lost each other, which the message
            of gloo tells, they are ended, and the next call starts others.
        """
        with self._lock:  # one conversation at a time
            try:
                return self._rank.ask(request)
            except RuntimeError as error:
                if _LOST in str(error) and self in _worlds:
                    _worlds.remove(self)
                    self._end(patience=0)
                raise

    def close(self) -> None:
        """End the other ranks."""
        with suppress(RuntimeError):
            self._rank.ask(None)
        self._end(patience=10)

    def _end(self, patience: float) -> None:
        atexit.unregister(self.close)
        for helper in self._helpers:
            with suppress(subprocess.TimeoutExpired):
                helper.wait(patience)
            helper.kill()
            helper.wait()
        dist.destroy_process_group()


def under_torchrun() -> bool:
    """Tell whether torchrun started this process."""
    return _UNDER_TORCHRUN in os.environ


_worlds: list[World] = []


def world(size: int) -> World:
    """Give the ranks, started where there are none yet; torchrun's number goes before `size`.

    Parameters
    ----------
    size : int

    Returns
    -------
    World
    """
    size = int(os.environ["WORLD_SIZE"]) if under_torchrun() else size
    if _worlds and _worlds[0].size != size:
        close()
    if not _worlds:
        _worlds.append(World(size))
    return _worlds[0]


def close() -> None:
    """End the ranks; the next call starts others."""
    while _worlds:
        _worlds.pop().close()


def _start(rank: int, size: int, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", _PROCESS, "--serve", str(rank), str(size), str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)
