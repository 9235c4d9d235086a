"""Processes on this machine that hold a sharded table together, and what they do on request.

Rank 0 is the process that is judged; the others, which :mod:`rank_process` runs, do as it says.
They are forked from one process that has imported torch, or started by torchrun.
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

from embconform.backends.hooks import without_the_callers_hooks
from embconform.backends.torchrun import under_torchrun

_IDLE: Final = timedelta(days=1)
_BUSY: Final = timedelta(seconds=30)
_APART: Final = timedelta(seconds=0.5)
"""How much later than another rank the first one may raise the same and keep that rank."""
_SOON: Final = timedelta(seconds=2)
"""How much later than the first rank others may be done and be kept."""
WORLDS: Final = "embconform/worlds"
"""What counts them in torchrun's store."""
_PROCESS: Final = "embconform.backends.rank_process"
_FIRST: Final = "the first rank"
_LOST: Final = "gloo/transport"


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
        On the CPU, where they are sent.
    options : dict
    device : str
        Where the table is sharded: ``cpu``, over gloo, or ``cuda``, over NCCL.
    """

    ticket: int
    forgotten: tuple[int, ...]
    style: str
    indices: torch.Tensor
    weight: torch.Tensor
    options: dict[str, Any]
    device: str = "cpu"


@dataclass(frozen=True)
class Backward:
    """A backward pass through the lookup `ticket`.

    Attributes
    ----------
    ticket : int
    upstream : Tensor
    anomalies : tuple of bool
        Whether the first rank's caller watches for anomalies, and for NaN among them: the others
        raise where it does.
    """

    ticket: int
    upstream: torch.Tensor
    anomalies: tuple[bool, bool]


Request = Forward | Backward | None


class RanksHungError(RuntimeError):
    """One rank raised what the first did not, and the others waited for it in a collective."""


class Rank:
    """One process's part of the work.

    Parameters
    ----------
    rank, size : int
    store : torch.distributed.Store
        Where they meet, and agree on who raised.
    """

    def __init__(self, rank: int, size: int, store: Any) -> None:
        self._rank, self._size = rank, size
        over = "cpu:gloo,cuda:nccl" if has_nccl() else "gloo"
        dist.init_process_group(over, store=store, rank=rank, world_size=size, timeout=_BUSY)
        self.control = dist.new_group(timeout=_IDLE, backend="gloo")
        self._store = dist.PrefixStore("embconform", store)  # type: ignore[attr-defined]
        self._turn = 0
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def serve(self) -> None:
        """Do as rank 0 says until it says None or is gone, or waits in vain for this rank."""
        with suppress(RuntimeError):
            while (request := self._exchange(None)) is not None:
                try:
                    self._do(request)
                except Exception as error:
                    with suppress(RuntimeError):
                        self._store.wait([self._outcome()], _APART)
                    if self.raised_alone(" ".join(f"{type(error).__name__}: {error}".split())):
                        return  # as an error ends a process that nobody looks after
                self._store.set(self._done(self._rank), "")

    def ask(self, request: Request) -> torch.Tensor | None:
        """Have all ranks do something; rank 0 gives the whole result."""
        self._exchange(request)
        return self._do(request)

    def raised_alone(self, said: str = "", before: int = 0) -> str:
        """Agree on who raised first.

        Parameters
        ----------
        said : str, optional
            What this rank, which is not the first, raised.
        before : int, optional
            How many requests ago.

        Returns
        -------
        str
            What a rank alone raised; empty where the first one did too.
        """
        mine = f"rank {self._rank}, which alone raised {said}" if self._rank else _FIRST
        agreed: str = self._store.compare_set(self._outcome(before), "", mine).decode()
        return "" if agreed == _FIRST else agreed

    def others_are_done(self) -> bool:
        """Wait a little until all other ranks are done with what this one raised in."""
        others = [self._done(rank) for rank in range(self._size) if rank != self._rank]
        try:
            self._store.wait(others, _SOON)
        except RuntimeError:
            return False
        return True

    def _done(self, rank: int) -> str:
        return f"done/{self._turn}/{rank}"

    def _outcome(self, before: int = 0) -> str:
        return f"raised/{self._turn - before}"

    def _exchange(self, request: Request) -> Request:
        self._turn += 1
        box = [request]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def _do(self, request: Request) -> torch.Tensor | None:
        match request:
            case Forward():
                return self._forward(request)
            case Backward():
                weight, output = self._kept[request.ticket]
                upstream = request.upstream.to(output.device)
                with torch.autograd.set_detect_anomaly(*request.anomalies):
                    (gradient,) = torch.autograd.grad(output, weight, upstream, retain_graph=True)
                return gradient.full_tensor()  # type: ignore[attr-defined, no-any-return]
        return None

    def _forward(self, request: Forward) -> torch.Tensor:
        from torch.distributed.device_mesh import init_device_mesh
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
        mesh = init_device_mesh(request.device, (self._size,))
        table = request.weight.to(request.device, copy=True)
        rows, width = table.shape
        module = torch.nn.Embedding(rows, width, _weight=table, **request.options)
        parallelize_module(module, mesh, styles[request.style])
        # the ranks can't join in what a checkpoint of the caller recomputes
        with torch.enable_grad(), without_the_callers_hooks():
            output = module(request.indices.to(request.device))
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
        self.size = size
        if under_torchrun():
            self._rank = torchrun_rank()
        else:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            store: Any = dist.TCPStore(  # type: ignore[attr-defined]
                "127.0.0.1", 0, is_master=True, wait_for_workers=False
            )
            _nursery.fork(size, store.port)
            self._rank = Rank(0, size, store)
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, request: Request) -> torch.Tensor | None:
        """Have all ranks do something; give the whole result.

        Raises
        ------
        Exception
            What it raises in this process. Where the ranks have lost each other, which the message
            of gloo tells, or where another waits in a collective that this one never came to, they
            are ended, and the next call starts others.
        RanksHungError
            Where they lost each other because one of them alone raised.
        """
        with self._lock:  # one conversation at a time
            try:
                return self._rank.ask(request)
            except Exception as error:
                lost = _LOST in str(error)
                alone = self._rank.raised_alone() or (lost and self._rank.raised_alone(before=1))
                astray = alone or lost or not self._rank.others_are_done()
                if astray and self in _worlds:
                    _worlds.remove(self)
                    self._end()
                if alone and lost:
                    raise RanksHungError(f"the ranks wait in vain for {alone}") from error
                raise

    def close(self) -> None:
        """End the other ranks."""
        with suppress(RuntimeError):
            self._rank.ask(None)
        self._end()

    def _end(self) -> None:
        atexit.unregister(self.close)
        dist.destroy_process_group()


class Nursery:
    """The process that ranks are forked from; started when the first are wanted."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def fork(self, size: int, port: int) -> None:
        """End the ranks that there are, and start all but the first of others.

        Parameters
        ----------
        size : int
            How many there are, this process included.
        port : int
            Of the store on this machine where they meet.
        """
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-P", "-m", _PROCESS]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, env=environment, text=True
            )
            assert self._process.stdout is not None
            self._process.stdout.readline()  # it has imported torch, however long that took
        assert self._process.stdin is not None
        self._process.stdin.write(f"{size} {port}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End it, and with it the ranks."""
        if self._process is not None:
            self._process.communicate()
        self._process = None


_nursery: Final = Nursery()


def has_nccl() -> bool:
    """Tell whether torchrun's processes on this machine have a CUDA device each."""
    if not under_torchrun() or not dist.is_nccl_available():
        return False
    return torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])


def torchrun_rank(world: int = 0) -> Rank:
    """Make this process the rank that torchrun's environment says.

    Parameters
    ----------
    world : int, optional
        Which of the worlds that there are, one after the other; 0 for a new one.

    Returns
    -------
    Rank
    """
    store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    number = world or store.add(WORLDS, 1)
    return Rank(rank, size, dist.PrefixStore(f"world/{number}", store))  # type: ignore[attr-defined]


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
    _nursery.close()
