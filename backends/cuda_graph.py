"""torch.nn.functional.embedding in a CUDA graph: captured once a signature, replayed on new data.

What a graph reads is where it was at the capture, so each call copies the indices and the whole
table into buffers of the graph's own, and the output out of another.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch.autograd.function import once_differentiable

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.devices import cuda_unavailable
from embconform.backends.through import EmbeddingThrough
from embconform.reference.clause import Profile

unavailable = cuda_unavailable

MOST: Final = 512
ROOM: Final = 2**28
"""Graphs that are kept, and bytes that their buffers take together."""
ALWAYS: Final = 32
"""Graphs that are kept whatever their buffers take."""
NO_ROW: Final = -1
"""As ATen's padding_idx: no row is padding."""


class Captured:
    """A function of tensors as a CUDA graph, which is replayed on the current stream.

    Parameters
    ----------
    function : callable
        Launches kernels for the tensors that it is given, and gives a tensor.
    inputs : Tensor
        What it is captured for; others of these shapes and dtypes may follow.
    beside : Captured, optional
        Another graph that is replayed on the same stream, whose memory this one takes its own from.

    Raises
    ------
    RuntimeError
        If what it launches can't be captured.
    """

    def __init__(
        self,
        function: Callable[..., torch.Tensor],
        *inputs: torch.Tensor,
        beside: Captured | None = None,
    ) -> None:
        self._graph = torch.cuda.CUDAGraph()
        pool = None if beside is None else beside._graph.pool()
        current = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.inference_mode(False), torch.no_grad():
            self._inputs = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in inputs]
            self._fill(inputs)
            side.wait_stream(current)
            with torch.cuda.stream(side):
                function(*self._inputs)  # wrong arguments raise here, and kernels are loaded
                # other threads may go on: torch.cuda.graph would stop the whole device
                self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    self._output = function(*self._inputs)
                finally:
                    self._graph.capture_end()
            current.wait_stream(side)

    @property
    def size(self) -> int:
        """Bytes of its buffers."""
        return sum(buffer.nbytes for buffer in (*self._inputs, self._output))

    def _fill(self, inputs: tuple[torch.Tensor, ...]) -> None:
        for buffer, given in zip(self._inputs, inputs, strict=True):
            buffer.copy_(given)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run it on other data."""
        self._fill(inputs)
        self._graph.replay()
        return self._output.clone()


_graphs: OrderedDict[tuple[Hashable, ...], Captured] = OrderedDict()
_lock = threading.Lock()


def _run(
    name: str, arguments: tuple[Any, ...], function: Callable[..., torch.Tensor], *inputs: Any
) -> torch.Tensor:
    """Replay the graph of a signature, captured first where it is new.

    A graph belongs to the stream that it is used on: its buffers serve one call after the other,
    and so does the memory that it shares with that stream's other graphs. With memory of its own,
    each would ask the driver for some, which is slow, and slower beside other processes.
    """
    device = inputs[0].device
    with torch.cuda.device(device), _lock:
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("a CUDA graph can't be replayed inside the capture of another")
        place = (device, torch.cuda.current_stream().cuda_stream)
        signature = (name, arguments, torch.are_deterministic_algorithms_enabled())
        key = (*place, *signature, *((tuple(each.shape), each.dtype) for each in inputs))
        graph = _graphs.get(key)
        if graph is None:
            beside = next((each for at, each in _graphs.items() if at[:2] == place), None)
            graph = _graphs[key] = Captured(function, *inputs, beside=beside)
            _forget_oldest()
        _graphs.move_to_end(key)
        return graph(*inputs)


def _forget_oldest() -> None:
    """Drop the graphs that were used longest ago, where there are too many."""
    room = sum(graph.size for graph in _graphs.values())
    while len(_graphs) > (MOST if room <= ROOM else ALWAYS):
        _, graph = _graphs.popitem(last=False)
        room -= graph.size


def _forward(padding: int | None, indices: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.embedding(indices, weight, padding)


Arguments = tuple[int, int, bool]
"""The number of rows, the padding row or NO_ROW, and scale_grad_by_freq."""


def _gradient(arguments: Arguments, upstream: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.ops.aten.embedding_dense_backward(upstream, indices, *arguments)
    return found


class _Replayed(torch.autograd.Function):
    """Replays a graph for the lookup and another for its gradient."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, indices: torch.Tensor, padding: int | None, scaled: bool
    ) -> torch.Tensor:
        look_up = partial(_forward, padding)
        ctx.save_for_backward(indices)
        if not (indices.numel() and weight.numel()):
            output = look_up(indices, weight)  # there is nothing to capture
        else:
            output = _run("forward", (padding,), look_up, indices, weight)
        rows = weight.shape[0]
        row = NO_ROW if padding is None else padding % rows
        ctx.arguments = (rows, row, scaled)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        differentiate = partial(_gradient, ctx.arguments)
        if not upstream.numel():
            return differentiate(upstream, indices), None, None, None
        gradient = _run("gradient", ctx.arguments, differentiate, upstream, indices)
        return gradient, None, None, None


def embedding(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    *,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> torch.Tensor:
    """Look rows up by a graph's replay.

    Parameters
    ----------
    input : Tensor of int32 or int64
        Indices, of any shape, on a CUDA device.
    weight : Tensor, shape (V, D)
    padding_idx : int, optional
    max_norm, norm_type, sparse
        At their defaults.
    scale_grad_by_freq : bool

    Returns
    -------
    Tensor
        The shape of `input` followed by D.

    Raises
    ------
    NotImplementedError
        If `max_norm` or `sparse` is asked for: both let the host wait for the device, which no
        capture allows.
    """
    del norm_type
    if max_norm is not None or sparse:
        raise NotImplementedError("a CUDA graph holds no max_norm and no sparse gradient")
    output: torch.Tensor = _Replayed.apply(weight, input, padding_idx, scale_grad_by_freq)  # type: ignore[no-untyped-call]
    return output


class Embedding(EmbeddingThrough):
    """A torch.nn.Embedding whose lookup is a graph's replay."""

    lookup = staticmethod(embedding)


BACKEND = Backend(
    name="cuda-graph",
    functional=embedding,
    module=Embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("cuda_graph.toml"),
    capabilities=Capabilities(
        options=frozenset({"padding_idx", "scale_grad_by_freq"}),
        double_backward=False,
        devices=("cuda",),
    ),
    source="from embconform.backends.cuda_graph import Embedding, embedding",
    summary="the function in a CUDA graph, captured once a signature and replayed",
)
