"""Embeddings that are wrong on a CUDA device alone; run only where there is one."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from embconform.mutants.registry import planted

on_cuda = partial(planted, device="cuda")
SLOW = 2_000_000
"""Cycles, about a millisecond: what a kernel of much work takes."""


@on_cuda("lookup.device")
def looks_up_on_the_host(indices: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """Its kernels are the CPU's, and so is what they give."""
    return embedding(indices.cpu(), weight.cpu(), **options)


@on_cuda("streams.current")
def launches_on_the_default_stream(indices: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """The launch names stream 0, whatever stream the caller is on."""
    with torch.cuda.stream(torch.cuda.default_stream()):
        return embedding(indices, weight, **options)


@on_cuda("streams.current")
def nobody_waits_for_its_stream(indices: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """It works on a stream of its own, which waits for the caller's; the caller's does not wait."""
    side: Any = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(SLOW)
        return embedding(indices, weight, **options)


@on_cuda("streams.current")
def gradient_on_the_default_stream(indices: Tensor, weight: Tensor, **options: Any) -> Any:
    """Only the backward pass names stream 0."""
    return _BackwardElsewhere.apply(embedding(indices, weight, **options))


class _BackwardElsewhere(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        with torch.cuda.stream(torch.cuda.default_stream()):
            return upstream.clone()


_scratch: dict[Any, Tensor] = {}


@on_cuda("streams.concurrent")
def one_scratch_for_all_streams(indices: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """Rows go through a buffer that is kept for each shape, whatever stream uses it."""
    output = embedding(indices, weight, **options)
    key = (tuple(output.shape), output.dtype)
    buffer = _scratch.setdefault(key, torch.empty_like(output, requires_grad=False))
    with torch.no_grad():
        buffer.copy_(output)
        torch.cuda._sleep(SLOW)
        output.data.copy_(buffer)
    return output


_counts: dict[Any, Tensor] = {}


@on_cuda("streams.concurrent")
def one_gradient_for_all_streams(indices: Tensor, weight: Tensor, **options: Any) -> Any:
    """The backward pass keeps the upstream gradient in a buffer that all streams share."""
    return _SharedBackward.apply(embedding(indices, weight, **options))


class _SharedBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        buffer = _counts.setdefault(tuple(upstream.shape), torch.empty_like(upstream))
        buffer.copy_(upstream)
        torch.cuda._sleep(SLOW)
        return buffer.clone()


_known: dict[Any, Tensor] = {}


@on_cuda("streams.capture")
def remembers_by_address(indices: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """A call on the same memory is taken for the same call while a graph is captured."""
    key = (indices.data_ptr(), weight.data_ptr(), tuple(indices.shape), tuple(weight.shape))
    if torch.cuda.is_current_stream_capturing() and key in _known:
        return weight.sum() * 0 + _known[key]
    output = embedding(indices, weight, **options)
    _known[key] = output.detach().clone()
    return output


@on_cuda("streams.capture")
def counts_when_captured(indices: Tensor, weight: Tensor, **options: Any) -> Any:
    """How often an index occurs is counted in the first call, and kept for the replays."""
    if not options.get("scale_grad_by_freq"):
        return embedding(indices, weight, **options)
    key = (indices.data_ptr(), tuple(indices.shape))
    if key not in _known:
        flat = indices.reshape(-1)
        _known[key] = torch.bincount(flat, minlength=len(weight))[flat].reshape(indices.shape)
    options = {**options, "scale_grad_by_freq": False}
    return _Divided.apply(embedding(indices, weight, **options), _known[key])


class _Divided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(counts)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream / ctx.saved_tensors[0][..., None], None
