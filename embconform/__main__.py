"""Run the command line as ``python -m embconform``, or as torchrun's first process."""

import os

from embconform.commands.main import entry_point


def _under_torchrun() -> None:
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
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _under_torchrun()
    else:
        entry_point()
