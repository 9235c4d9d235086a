"""Run the command line as ``python -m embconform``, or as torchrun's first process."""

import os

from embconform.backends.torchrun import under_torchrun
from embconform.commands.main import entry_point


def _as_one_of_torchruns() -> None:
    """Run the command in the first process, which the others serve."""
    from embconform.backends.rank_process import attend, dismiss

    if os.environ["RANK"] != "0":
        attend()
        return
    try:
        entry_point()
    finally:
        dismiss()


if __name__ == "__main__":
    if under_torchrun():
        _as_one_of_torchruns()
    else:
        entry_point()
