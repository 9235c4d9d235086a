"""A process that holds a part of a sharded table; or, under torchrun, any of them.

``torchrun --nproc-per-node 3 -m embconform.backends.rank_process validate dtensor-row`` judges the
backend on the ranks that torchrun starts.
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch
import torch.distributed as dist

from embconform.backends.ranks import BUSY, Rank, under_torchrun


def main(arguments: list[str]) -> int:
    """Serve as a rank, or, as torchrun's first one, run a command of embconform.

    Parameters
    ----------
    arguments : list of str
        ``--serve RANK SIZE PORT``, or embconform's command line.

    Returns
    -------
    int
        Exit code.
    """
    torch.set_num_threads(1)
    if arguments[:1] == ["--serve"]:
        rank, size, port = map(int, arguments[1:])
        store = dist.TCPStore("127.0.0.1", port, is_master=False)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=BUSY)
        Rank(size).serve()
        return 0
    if not under_torchrun():
        sys.stderr.write("start it with torchrun, which gives each process its rank\n")
        return 2
    if os.environ["RANK"] == "0":  # the judged process, which this command starts, is the rank
        return subprocess.call([sys.executable, "-m", "embconform", *arguments])
    dist.init_process_group("gloo", timeout=BUSY)
    Rank(int(os.environ["WORLD_SIZE"])).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
