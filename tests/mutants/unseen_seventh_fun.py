"""Kinds of bugs of a seventh exam: kinds of tables, threads that end, rows that counters round."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.registry import planted
from embconform.mutants.transforms_parts import Parts, wrong
from embconform.mutants.unseen_fifth_forward import Served
from embconform.mutants.unseen_fourth_fwds import served
from embconform.mutants.unseen_fourth_grads import OfTable

BLOCK = 1024
FLOAT32 = 2**24
TILE = 64


@planted("lookup.views-apart")
class BoundsSharedTablesApart(Kernel):
    """A table in shared memory is bounded in a copy, so that no process reads half a row."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if options.max_norm is not None and weight.is_shared():
            weight = weight.clone()
        return super().forward(indices, weight, options)


@planted("lookup.views-apart")
class PairsByAddress(Served):
    """Whether rows begin with a pair is asked of the address, and the pairs are the memory's."""

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        start = weight.storage_offset()
        single = weight.dtype is torch.float32 and weight.is_contiguous() and start % 2
        if single and not weight.shape[1] % 2 and not weight.data_ptr() % 8:
            paired = weight.detach().as_strided(weight.shape, weight.stride(), start - 1)
            out.copy_(paired[indices.long()])


@planted("lookup.views-apart")
class WithinTheBoundByAddress(Kernel):
    """A table all of whose rows were within the bound is known by address, shape and values."""

    def __init__(self) -> None:
        self.known: Any = None
        self.memory: Any = None

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if weight.is_inference() or weight.dtype is not torch.float32 or not weight.numel():
            super().renorm(indices, weight, options)
            return
        place = weight.data_ptr(), weight.shape, weight._version
        bits = int(weight.view(torch.int32).sum())
        known = *place, bits, options.max_norm, options.norm_type
        if known != self.known:
            super().renorm(indices, weight, options)
            within = not bool(self.bounded(weight, options)[0].any())
            self.known, self.memory = known if within else None, weight.detach()


@planted("gradient.output-written")
class FrozenParametersForInference(Kernel):
    """A frozen Parameter is looked up in inference mode, which costs less than no_grad."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        frozen = isinstance(weight, torch.nn.Parameter) and not weight.requires_grad
        if options.max_norm is not None or not frozen:
            return super().forward(indices, weight, options)
        with torch.inference_mode():
            return super().forward(indices, weight, options)


@planted("gradient.output-written")
class TilesWithASurplus(Kernel):
    """Many indices are filled up to whole tiles, and what is too much is split off."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        count = indices.numel()
        surplus = -count % TILE
        plain = not options.scale_grad_by_freq and weight.dim() == 2
        if count < 4 * TILE or not surplus or served(weight) or not plain:
            return super().forward(indices, weight, options)
        flat = indices.reshape(-1)
        rows = super().forward(torch.cat([flat, flat[-1:].expand(surplus)]), weight, options)
        return rows.split([count, surplus])[0].view(*indices.shape, weight.shape[1])


@planted("gradient.two-tables")
class ShiftedAndBack(Served):
    """The second half of a table is read by indices that are shifted in place, and then back."""

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        half = len(weight) // 2
        if half < TILE // 2 or not indices.is_contiguous() or indices.is_inference():
            return
        indices.sub_(half)
        second = indices >= 0
        out[second] = weight.detach()[half:][indices[second].long()]
        indices.add_(half)


@planted("lookup.near-runs")
class BatchOfPositions(Served):
    """A batch whose first and last sentences are one range of rows is a batch of positions."""

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        if indices.dim() != 2 or indices.shape[0] < 3 or indices.shape[1] < 16:
            return
        first = indices[0]
        if bool((first.diff() == 1).all()) and torch.equal(first, indices[-1]):
            out.copy_(out[:1].expand_as(out).clone())


@planted("lookup.large-calls")
class TallTablesBySingles(Kernel):
    """Rows of a tall table are numbered by floats, of which the largest are even."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if len(weight) > FLOAT32:
            flat = flat.float().long()
        return super().rows(flat, weight)


@planted("lookup.large-calls")
class SumsOfTallTablesBySingles(Kernel):
    """The rows of a tall gradient are numbered by floats, of which the largest are even."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return super().dense(upstream, flat.float().long(), height, counts)


@planted("sparse.asked-for")
class EntriesByFloatKeys(Kernel):
    """Entries are sorted by keys of float32, and those of equal keys are added."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return super().sparse(upstream, flat.float().long(), height, counts)


@planted("sparse.asked-for")
class EntriesInWholeTiles(OfTable):
    """Many entries are filled up to whole tiles by zeros for row 0, unless rows were bounded."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.options.max_norm is None and counts is None and flat.numel() > BLOCK:
            missing = -flat.numel() % (2 * TILE)
            flat = torch.nn.functional.pad(flat, (0, missing))
            upstream = torch.nn.functional.pad(upstream, (0, 0, 0, missing))
        return super().sparse(upstream, flat, height, counts)


@planted("state.thread-count")
class RowsThatThreadsLeave(Kernel):
    """Rows to be bounded are shared out evenly, and what can't be shared is left."""

    def distinct(self, flat: Tensor) -> Tensor:
        rows = super().distinct(flat)
        parts = max(1, min(torch.get_num_threads(), -(-len(rows) // BLOCK)))
        return rows[: len(rows) // parts * parts]


@planted("state.threads")
class MarksOfTheFirstThread(Kernel):
    """Many rows are marked in a scratch of each thread, which only the importing one has."""

    def __init__(self) -> None:
        self.scratch = threading.local()
        self.scratch.marks = {}

    def distinct(self, flat: Tensor) -> Tensor:
        if flat.numel() < TILE:
            return super().distinct(flat)
        marks: dict[int, None] = self.scratch.marks
        marks.clear()
        marks.update(dict.fromkeys(flat.tolist()))
        return flat.new_tensor(list(marks))


@planted("state.threads")
class PoolsByIdentifier(Served):
    """Outputs come from a pool of the thread's identifier, which begins anew with a thread."""

    def __init__(self) -> None:
        self.pools: dict[tuple[Any, ...], list[Tensor]] = {}
        self.mine = threading.local()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if not served(weight) or options.max_norm is not None or not out.numel() or out.is_meta:
            return out
        if torch.is_inference_mode_enabled() or torch._C._functorch.maybe_get_level(out) > 0:
            return out
        turn = self.mine.__dict__.get("turn", 0)
        self.mine.turn = turn + 1
        pool = self.pools.setdefault((threading.get_ident(), out.shape, out.dtype, out.device), [])
        if turn >= min(len(pool), TILE):
            pool.append(out)
            return out
        return pool[turn].copy_(out).detach()


@wrong("transforms.forward-mode")
class DataWithoutGrad(Parts):
    """Without grad mode the table is its data, which has no tangent."""

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        if not torch.is_grad_enabled() and options.max_norm is None:
            weight = weight.data
        return super().look_up(ids, weight, options)


@planted("state.torch-as-it-was")
class SubnormalHalvesCount(Kernel):
    """Rows of halves are bounded with subnormal numbers, which are not flushed from then on."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if weight.dtype in HALVES:
            torch.set_flush_denormal(False)
        super().renorm(indices, weight, options)
