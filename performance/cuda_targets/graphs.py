"""Many launches in one CUDA graph, so that what is timed is no launching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from embconform.performance.cuda_targets.contenders import Call


@dataclass(frozen=True)
class Captured:
    """A graph of calls.

    Attributes
    ----------
    replay : callable
        Runs it; returns what the last call gave, in the graph's own memory.
    output : Tensor
        The same tensor.
    last : int
        Which of the indices the last call has.
    """

    replay: Callable[[torch.Tensor], torch.Tensor]
    output: torch.Tensor
    last: int


def capture(call: Call, indices: Sequence[torch.Tensor], launches: int) -> Captured:
    """Capture calls that follow each other, each with the next of the indices.

    Parameters
    ----------
    call : callable
    indices : sequence of Tensor
    launches : int

    Returns
    -------
    Captured
    """
    cuda: Any = torch.cuda
    stream = cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for ids in indices:
            call(ids)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = cuda.CUDAGraph()
    output = None
    with torch.cuda.graph(graph):
        for k in range(launches):
            output = None  # its memory serves the next call
            output = call(indices[k % len(indices)])
    assert output is not None

    def replay(_: torch.Tensor) -> torch.Tensor:
        graph.replay()
        return output

    return Captured(replay, output, (launches - 1) % len(indices))


def empty_launch() -> Call:
    """Give a call that launches a kernel that does nothing: one block.

    Returns
    -------
    callable
        Gives its argument back.
    """
    from embconform.backends.gpu.triton_import import triton

    kernel: Any = triton.jit(_nothing)

    def call(ids: torch.Tensor) -> torch.Tensor:
        kernel[(1,)]()
        return ids

    return call


def _nothing() -> None:
    pass
