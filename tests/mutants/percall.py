"""What the planted bugs share that remember something of a call."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options


class PerCall(Kernel):
    """A right embedding that copies itself for each call, so that the copy can take notes."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        call = copy(self)
        call.see(indices, weight, options)
        return Kernel.forward(call, indices, weight, options)

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        """Take notes."""


class PerTable(PerCall):
    """A right embedding that numbers the backward passes of each table, from 1 on."""

    def __init__(self) -> None:
        self.passes = WeakTensorKeyDictionary()

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.table = weight

    def next_pass(self) -> int:
        number = self.passes.get(self.table, 0) + 1
        self.passes[self.table] = number
        return number


def in_memory_order(tensor: Tensor) -> Tensor:
    """Permute the axes into the order in which they lie in memory."""
    axes = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(axes)


def as_if_contiguous(tensor: Tensor) -> Tensor:
    """Read as many elements as there are from where the tensor starts; 0 beyond its memory."""
    memory = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    memory = memory[tensor.storage_offset() :][: tensor.numel()]
    read = tensor.new_zeros(tensor.numel())
    read[: memory.numel()] = memory
    return read.reshape(tensor.shape)


def rank_among_equals(flat: Tensor) -> Tensor:
    """How many equal indices come before each index."""
    order = flat.argsort(stable=True)
    ordered = flat[order]
    starts = torch.searchsorted(ordered, ordered)
    rank = torch.empty_like(flat)
    rank[order] = torch.arange(flat.numel(), device=flat.device) - starts
    return rank
