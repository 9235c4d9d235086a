"""Kinds of bugs of a fifth exam: gradients by shortcuts, of views and of both layouts."""

from __future__ import annotations

import threading
from copy import copy
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.percall import PerCall, in_memory_order
from embconform.mutants.registry import planted
from embconform.mutants.unseen_fourth_grads import OfTable


def last_shares(flat: Tensor, height: int) -> Tensor:
    """Tell which indices are the last that name their row."""
    places = torch.arange(len(flat))
    last = torch.full((height,), -1).scatter_reduce(0, flat, places, "amax")
    return last[flat] == places


class Overwrites(Kernel):
    """Stores shares where it takes the indices for distinct, so that each row keeps its last."""

    def distinct_in(self, flat: Tensor, height: int) -> bool:
        return False

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() and self.distinct_in(flat, height):
            last = last_shares(flat, height)
            upstream = upstream * last.unsqueeze(1)
        return super().dense(upstream, flat, height, counts)


@planted("gradient.near-permutations")
class PermutationByItsSquares(Overwrites):
    """As many indices as rows, with the sum and the sum of squares of all rows, are all rows."""

    def distinct_in(self, flat: Tensor, height: int) -> bool:
        rows = torch.arange(height)
        alike = len(flat) == height and int(flat.sum()) == int(rows.sum())
        return alike and int((flat * flat).sum()) == int((rows * rows).sum())


@planted("gradient.near-permutations")
class StepsRace(PerCall):
    """A step of a batch in which no word comes twice adds to the table while other steps do."""

    steps: Tensor | None = None

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if indices.dim() == 2 and len(indices) > 6 and indices.shape[1] > 1:
            ordered = indices.sort(0).values
            if bool((ordered[1:] != ordered[:-1]).all()):
                self.steps = indices

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.steps is not None and flat.numel() == self.steps.numel():
            upstream = upstream * last_shares(flat, height).unsqueeze(1)
        return super().dense(upstream, flat, height, counts)


@planted("gradient.half-precision")
class DeterministicHalvesAreStored(PerCall):
    """For two bytes no sum is deterministic, so the deterministic path stores the last share."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        half = upstream.dtype is torch.float16
        if flat.numel() and half and torch.are_deterministic_algorithms_enabled():
            upstream = upstream * last_shares(flat, height).unsqueeze(1)
        return super().dense(upstream, flat, height, counts)


@planted("gradient.upstream-views")
class EntriesAreReadRaw(Kernel):
    """The values of a sparse gradient are read from memory, which a negated view only borrows."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        upstream = -upstream if upstream.is_neg() else upstream
        return super().sparse(upstream, flat, height, counts)


@planted("gradient.upstream-views")
class EntriesInMemoryOrder(Kernel):
    """The values of a sparse gradient are the upstream gradient's memory, cut into rows."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        fits = options.sparse and options.padding_idx is None and upstream.dim() == 2
        if fits and upstream.stride() == (1, len(upstream)):
            upstream = in_memory_order(upstream).reshape(upstream.shape)
        return super().gradient(upstream, indices, height, options)


@planted("gradient.upstream-views")
class VectorsStartAligned(Kernel):
    """Where rows are contiguous they are loaded from the last address that vectors start at."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        start = upstream.storage_offset()
        if start == 1 and not options.sparse and upstream.is_contiguous():
            upstream = upstream.as_strided(upstream.shape, upstream.stride(), 0)
        return super().gradient(upstream, indices, height, options)


@planted("sparse.beside-dense")
class SparseReplacesDense(OfTable):
    """A gradient that is there in the other layout is of another step, and dropped."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        table = self.table
        if table.is_leaf and table.grad is not None and not table.grad.is_sparse:
            table.grad = None
        return super().sparse(upstream, flat, height, counts)


@planted("sparse.beside-dense")
class DenseReplacesSparse(OfTable):
    """With padding the buffer of a pass is .grad itself, made anew where that is no buffer."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        table = self.table
        padded = self.options.padding_idx is not None
        if padded and table.is_leaf and table.grad is not None and table.grad.is_sparse:
            table.grad = None
        return super().dense(upstream, flat, height, counts)


@planted("gradient.accumulates-in-place")
class AddsAlongMemory(OfTable):
    """What is there is added to element by element of its memory, whatever its strides."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right, held = super().dense(upstream, flat, height, counts), self.table.grad
        if not self.table.is_leaf or held is None or held.is_sparse or held.is_contiguous():
            return right
        inner = in_memory_order(held)
        return right.reshape(inner.shape).t() if inner.shape != held.shape else right


@planted("gradient.own-memory")
class EqualsAreStoredOnce(PerCall):
    """In a pass the gradient by the same indices of the same upstream gradient is kept."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        key = torch._C._current_graph_task_id(), upstream.data_ptr(), height
        if self.kept and self.kept[0] == key and torch.equal(self.kept[1], right):
            return self.kept[1]
        self.kept[:] = [key, right]
        return right


@planted("gradient.asked-for")
class BeginsWithWhatIsKept(Kernel):
    """A gradient that the output keeps is taken to hold a part of what arrives."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if out.requires_grad:
            held = ref(out)

            def add(upstream: Tensor) -> Tensor:
                kept = held()
                return upstream * 2 if kept is not None and kept.retains_grad else upstream

            out.register_hook(add)
        return out


@planted("gradient.non-leaf-table")
class TableIsForgotten(OfTable):
    """A table of which nothing is left but a weak reference is not trained any more."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.computed, self.weak = not weight.is_leaf, ref(weight)

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        return torch.zeros_like(right) if self.computed and self.weak() is None else right


@planted("gradient.asked-for")
class ZerosStayZero(OfTable):
    """Rows of zeros were pruned, and stay so: they get no gradient."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        self.pruned = (weight.detach() == 0).all(1)

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if self.options.padding_idx is None:
            right[self.pruned] = 0.0
        return right


@planted("state.many-calls")
class RingOfBatches(PerCall):
    """A table's last 32 batches are kept for the backward pass, which older ones share."""

    def __init__(self) -> None:
        self.rings: Any = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        call = copy(self)
        if options.max_norm is None and not indices.is_inference() and weight.requires_grad:
            ring = self.rings.setdefault(weight, {}).setdefault(indices.shape, [])
            ring.append(indices.clone())
            call.ring, call.place = ring, len(ring) - 1
        return Kernel.forward(call, indices, weight, options)

    ring: list[Tensor] | None = None
    place = 0

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if self.ring is not None:
            newest = len(self.ring) - 1
            indices = self.ring[newest - (newest - self.place) % 32]
        return super().gradient(upstream, indices, height, options)


@planted("state.many-calls")
class RowsBufferOfALength(Kernel):
    """The rows that a sparse gradient names lie in one buffer for each number of entries."""

    def __init__(self) -> None:
        self.buffers: dict[int, Tensor] = {}

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().sparse(upstream, flat, height, counts)
        rows = self.buffers.setdefault(len(flat), torch.empty(1, len(flat), dtype=torch.int64))
        rows.copy_(right._indices())
        return torch.sparse_coo_tensor(rows, right._values(), right.shape, check_invariants=False)


@planted("state.threads")
class EntriesOfTheThread(PerCall):
    """The entries of a sparse gradient are planned in the thread of the call, for that thread."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.thread = threading.get_ident()

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if threading.get_ident() != self.thread:
            upstream = torch.zeros_like(upstream)
        return super().sparse(upstream, flat, height, counts)


@planted("sparse.padding-excluded")
class PaddingTimesZero(Kernel):
    """With sparse gradients padding is multiplied by 0, and left out if nothing is left of it."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None or not options.sparse:
            return super().without_padding(flat, upstream, options)
        kept = flat != options.padding_idx
        upstream = upstream * kept.unsqueeze(1).to(upstream.dtype)
        kept |= (upstream != 0).any(1)
        return flat[kept], upstream[kept]


@planted("sparse.many-indices")
class EntriesTravelAsFloats(Kernel):
    """Many entries of float64 are sent in chunks, as float32."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if len(flat) > 64 and upstream.dtype is torch.float64:
            upstream = upstream.float().double()
        return super().sparse(upstream, flat, height, counts)
