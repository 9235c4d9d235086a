"""A process that holds a part of a sharded table; or, under torchrun, any of them.

``torchrun --nproc-per-node 3 -m embconform.backends.rank_process validate dtensor-row`` judges the
backend on the ranks that torchrun starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module

import torch
import torch.distributed as dist

from embconform.backends.ranks import Rank, torchruns_rank, under_torchrun


def main(arguments: list[str]) -> int:
    """Fork ranks, or be one of torchrun's, or, as the first of those, run a command of embconform.

    Parameters
    ----------
    arguments : list of str
        ``--nursery``, or embconform's command line.

    Returns
    -------
    int
        Exit code.
    """
    torch.set_num_threads(1)
    if arguments == ["--nursery"]:
        for module in ("torch.distributed.tensor.parallel", "torch._dynamo"):
            import_module(module)  # what a lookup imports, once for all ranks
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        nurse(sys.stdin)
        return 0
    if not under_torchrun():
        sys.stderr.write("start it with torchrun, which gives each process its rank\n")
        return 2
    if os.environ["RANK"] == "0":  # the judged process, which this command starts, is the rank
        return subprocess.call([sys.executable, "-m", "embconform", *arguments])
    torchruns_rank().serve()
    return 0


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
        ranks = [_fork(rank, size, port) for rank in range(1, size)]
    _end(ranks)


def _fork(rank: int, size: int, port: int) -> int:
    if child := os.fork():
        return child
    try:
        store = dist.TCPStore("127.0.0.1", port, is_master=False)  # type: ignore[attr-defined]
        Rank(rank, size, store).serve()
    finally:
        os._exit(0)  # what the nursery has open is not this process's to close


def _end(ranks: Iterable[int]) -> None:
    for rank in ranks:
        os.kill(rank, signal.SIGKILL)  # one that has ended waits to be waited for
        os.waitpid(rank, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
