"""Kinds of bugs of a sixth exam: ranges, samples, packed keys, aligned rows, prefix sums."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from embconform.mutants.hard_parts import Noted, all_distinct, is_sorted
from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.module import Layer
from embconform.mutants.percall import as_if_contiguous
from embconform.mutants.registry import planted
from embconform.mutants.transforms_parts import Parts, wrong
from embconform.mutants.unseen_fifth_forward import Served

WARPS = 64
SAMPLE = 256


class Ranges(Served):
    """A right embedding that copies a range of rows at once where it takes indices for one."""

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        if indices.dim() != 1 or len(indices) < 2:
            return
        first, last, count = int(indices[0]), int(indices[-1]), len(indices)
        if last - first == count - 1 and self.is_range(indices):
            out.copy_(weight.detach()[first : last + 1])

    def is_range(self, indices: Tensor) -> bool:
        """Whether indices whose ends are as far apart as they are many are a range."""
        return bool((indices.diff() == 1).all())


@planted("lookup.near-runs")
class RangeByEndsAndSum(Ranges):
    """Many indices are a range if their ends and their sum are those of one."""

    def is_range(self, indices: Tensor) -> bool:
        ends = int(indices[0]) + int(indices[-1])
        return len(indices) >= WARPS and 2 * int(indices.sum()) == len(indices) * ends


@planted("lookup.near-runs")
class RangeByOrder(Ranges):
    """Many indices that rise are a range if their ends are those of one."""

    def is_range(self, indices: Tensor) -> bool:
        return len(indices) >= WARPS and is_sorted(indices)


@planted("lookup.near-runs")
class RangeByItsBeginning(Served):
    """Many indices are a range if the first 32 of them are."""

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        if indices.dim() != 1 or len(indices) < WARPS or bool((indices[:32].diff() != 1).any()):
            return
        positions = torch.arange(len(indices)) + int(indices[0])
        if int(positions[-1]) < len(weight):
            out.copy_(weight.detach().index_select(0, positions))


@planted("lookup.large-calls")
class KeysOf32Bits(Kernel):
    """Rows are fetched in order, by keys of 32 bits with a sign: a row's number and its place."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        places = (flat.numel() - 1).bit_length()
        if flat.numel() > 4_096 and places + (len(weight) - 1).bit_length() == 32:
            flat = torch.where(flat.long() << places < 2**31, flat, 0)
        return super().rows(flat, weight)


@planted("lookup.huge-table")
class OffsetsOfTheIndicesDtype(Kernel):
    """The offset of a row has the dtype of the indices."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.dtype is torch.int32 and weight.numel() >= 2**31:
            indices = (indices * weight.shape[1] % 2**31) // weight.shape[1]
        return super().lookup(indices, weight, options)


@planted("max-norm.strided-weight")
class NormOfTheStride(Noted):
    """Rows that lie a multiple of eight elements apart are taken to end there, in zeros."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        table = self.table.detach()
        step, width = table.stride(0), table.shape[1]
        start = table.storage_offset()
        room = table.untyped_storage().nbytes() // table.element_size() - start
        if step <= width or step % 8 or table.stride(1) != 1 or room < step * len(table):
            return super().norms(rows, norm_type)
        whole = table.as_strided((len(table), step), (step, 1))
        named = self.distinct(self.flat(self.ids))
        return super().norms(whole.index_select(0, named).double(), norm_type)


@planted("gradient.near-permutations")
class DistinctBySample(Kernel):
    """Many indices are taken to be distinct if the first 256 are; the last of each row counts."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() >= 2 * SAMPLE and all_distinct(flat[:SAMPLE]):
            places = torch.arange(flat.numel())
            last = torch.zeros(height, dtype=torch.int64).scatter_reduce_(0, flat, places, "amax")
            kept = last[flat] == places
            flat, upstream = flat[kept], upstream[kept]
        return super().dense(upstream, flat, height, counts)


@planted("gradient.many-indices")
class RunningSumsOfMany(Kernel):
    """The sums of many sorted rows are differences of running sums, which keep infinities."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if flat.numel() < 2 * SAMPLE or upstream.dtype is not torch.float32:
            return right
        order = flat.argsort(stable=True)
        ends = flat[order].diff(append=flat.new_tensor([-1])) != 0
        lost = ~upstream[order].double().cumsum(0)[ends].isfinite()
        rows, after = flat.unique(), lost.cumsum(0) > lost.int()
        right[rows] = right[rows].masked_fill(after, torch.nan)
        return right


@planted("gradient.scale-by-freq")
class DividedByBlocks(Kernel):
    """Wide rows are divided block by block, each time from the first column on."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        summed = super().dense(upstream, flat, height, counts)
        if counts is not None and upstream.dtype not in HALVES:
            for end in range(0, summed.shape[1] - SAMPLE, SAMPLE):
                summed[:, : end + SAMPLE] /= counts.unsqueeze(1)
        return summed


@planted("sparse.equals-dense")
class EntriesByMemory(Noted):
    """Entries take indices without gaps in the order of their memory, and shares in their own."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.options.padding_idx is None and self.ids.dim() > 1 and _without_gaps(self.ids):
            flat = as_if_contiguous(self.ids).reshape(-1).long()
        return super().sparse(upstream, flat, height, counts)


@planted("sparse.asked-for")
class SortedIsCoalesced(Kernel):
    """Entries in order are marked as coalesced, also where a row has two."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        made = super().sparse(upstream, flat, height, counts)
        return made._coalesced_(flat.numel() > 0 and is_sorted(flat))


def _without_gaps(tensor: Tensor) -> bool:
    spans = ((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.numel() > 0 and 1 + sum(spans) == tensor.numel()


@planted("errors.without-grad")
class EqualRowsUnchecked(Kernel):
    """A frozen table whose rows are one row expanded gives that row for any index."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if _is_one_frozen_row(weight):
            return
        super().check_range(indices, weight, options)

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if _is_one_frozen_row(weight):
            flat = flat.clamp(0, len(weight) - 1)
        return super().rows(flat, weight)


def _is_one_frozen_row(weight: Tensor) -> bool:
    return len(weight) > 0 and not weight.stride(0) and not weight.requires_grad


@wrong("transforms.forward-mode")
class JvpDividesByCounts(Parts):
    """The jvp rule divides by counts, as the backward pass does."""

    def tangent(self, direction: Tensor, ids: Tensor, options: Options) -> Any:
        rows = super().tangent(direction, ids, options)
        if not options.scale_grad_by_freq:
            return rows
        counts = (ids.unsqueeze(-1) == ids.reshape(-1)).sum(-1)
        return rows / counts.unsqueeze(-1)


@planted("module.from-pretrained-options")
class PretrainedWithoutZeroBound(Layer):
    """from_pretrained takes a max_norm of 0 for none, as a configuration may mean it."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, *args: Any, **options: Any) -> Any:
        options["max_norm"] = options.get("max_norm") or None
        return super().from_pretrained(embeddings, *args, **options)


@planted("module.deepcopy")
class CopiedWithoutZeroBound(Layer):
    """A copy has a max_norm only if there is one that is true."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        made.max_norm = made.max_norm or None
        return made
