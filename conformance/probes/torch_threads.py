"""How many threads torch works with inside an operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from embconform.conformance.lazy_torch import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Give torch a number of threads, and back the number that it had.

    Parameters
    ----------
    count : int
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
