"""Processes that hold a part of a sharded table, forked from one that has imported torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from typing import Final

import torch
import torch.distributed as dist

from embconform.backends.ranks import WORLDS, Rank, torchrun_rank

_OVER: Final = "embconform/over"
_PAUSE: Final = 0.1


def nurse(orders: Iterable[str]) -> None:
    """Fork all ranks but the first, for each order anew.

    Parameters
    ----------
    orders : iterable of str
        ``SIZE PORT`` each; with the last, the ranks end.
    """
    ranks: list[int] = []
    for order in orders:
        _end(ranks)
        size, port = map(int, order.split())
        ranks = [_fork(partial(_meet, rank, size, port)) for rank in range(1, size)]
    _end(ranks)


def attend() -> None:
    """Be one of torchrun's processes but the first: a rank of each world that the first makes."""
    _prepare()
    store, _, _ = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    ranks: list[int] = []
    seen = 0
    while not store.check([_OVER]):
        if (world := store.add(WORLDS, 0)) != seen:
            _end(ranks)
            ranks, seen = [_fork(partial(torchrun_rank, world))], world
        time.sleep(_PAUSE)
    _end(ranks)


def dismiss() -> None:
    """End torchrun's other processes."""
    store, _, _ = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    store.set(_OVER, "yes")


def _prepare() -> None:
    torch.set_num_threads(1)
    for module in ("torch.distributed.tensor.parallel", "torch._dynamo"):
        import_module(module)  # what a lookup imports, once for all ranks


def _meet(rank: int, size: int, port: int) -> Rank:
    store = dist.TCPStore("127.0.0.1", port, is_master=False)  # type: ignore[attr-defined]
    return Rank(rank, size, store)


def _fork(make: Callable[[], Rank]) -> int:
    if child := os.fork():
        return child
    try:
        make().serve()
    finally:
        os._exit(0)  # what the first process has open is not this one's to close


def _end(ranks: Iterable[int]) -> None:
    for rank in ranks:
        os.kill(rank, signal.SIGKILL)  # one that has ended waits to be waited for
        os.waitpid(rank, 0)


if __name__ == "__main__":
    _prepare()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    nurse(sys.stdin)
