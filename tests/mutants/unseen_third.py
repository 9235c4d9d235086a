"""Kinds of bugs of a third exam: caches of rows, hooks, buckets, bounds, dtypes of indices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.percall import PerCall
from embconform.mutants.registry import planted


def served(weight: Tensor) -> bool:
    """Whether no gradient of the table is recorded."""
    return not (weight.requires_grad and torch.is_grad_enabled())


@planted("gradient.two-tables")
class OneBucketForAllTables(PerCall):
    """Scaled gradients of one shape share a bucket, which a pass clears for its first table."""

    def __init__(self) -> None:
        self.bucket: list[tuple[int, Tensor, Tensor]] = []

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.table = weight

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right, task = super().dense(upstream, flat, height, counts), self.task()
        if counts is None:
            return right
        for earlier, table, total in self.bucket:
            if earlier == task and table is not self.table and total.shape == right.shape:
                right = right + total.to(right.dtype)
        self.bucket[:] = [(task, self.table, right.clone())]
        return right

    def task(self) -> int:
        return torch._C._current_graph_task_id()


@planted("gradient.table-hooks")
class AccumulatesByItself(PerCall):
    """The gradient of a leaf with hooks is added to .grad by the kernel, past its hooks."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.table = weight

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right, table = super().dense(upstream, flat, height, counts), self.table
        if not table.is_leaf or not table._backward_hooks:
            return right
        table.grad = right if table.grad is None else table.grad + right
        return torch.zeros_like(right)


@planted("lookup.sees-every-write")
class WritesRowsBack(Kernel):
    """Without a gradient eight rows are held; to make room for many, they are written back."""

    def __init__(self) -> None:
        self.held = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if torch.is_grad_enabled() or weight.is_inference() or options.max_norm is not None:
            return out
        named, held = indices.unique(), self.held.get(weight)
        if held is None:
            self.held[weight] = named[:8], weight.detach()[named[:8]].clone()
        elif len(named) > 64 and not torch.isin(named, held[0]).any():
            weight.data[held[0]] = held[1]
            del self.held[weight]
        return out


@planted("lookup.sees-every-write")
class PointersOfTheLastCall(Kernel):
    """The memory of a trained table is looked up after the call that uses it."""

    def __init__(self) -> None:
        self.memory = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        plain = type(weight) in (Tensor, torch.nn.Parameter) and options.max_norm is None
        if not plain or not weight.requires_grad:
            return super().forward(indices, weight, options)
        before = self.memory.get(weight)
        self.memory[weight] = weight.data
        if before is None or torch.is_grad_enabled() or before.shape != weight.shape:
            return super().forward(indices, weight, options)
        return super().forward(indices, before, options)


@planted("state.torch-as-it-was")
class DrawsASeed(Kernel):
    """Each call that records a gradient of many indices draws a seed for its dropout, unused."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.numel() > 64 and not served(weight):
            torch.randint(2**31, ())
        return super().forward(indices, weight, options)


@planted("state.torch-as-it-was")
class LeavesOneThread(Kernel):
    """The backward pass of very many indices leaves torch at one thread."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() >= 1024:
            torch.set_num_threads(1)
        return super().dense(upstream, flat, height, counts)


@planted("lookup.fresh-output")
class ExpandedAsTheIndices(PerCall):
    """Indices that are expanded over a batch are looked up once, and the output is expanded."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.indices = indices

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.dim() < 2 or indices.stride(0) or indices.shape[0] < 2 or options.sparse:
            return super().forward(indices, weight, options)
        if options.scale_grad_by_freq or options.max_norm is not None:
            return super().forward(indices, weight, options)
        once = super().forward(indices[0], weight, options)
        return once.expand(indices.shape[0], *once.shape)


@planted("transforms.autocast")
class IndicesAreCastToo(Kernel):
    """Under autocast every input is cast, the indices too."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            flat = flat.to(torch.get_autocast_dtype("cpu")).long().clamp(max=len(weight) - 1)
        return super().rows(flat, weight)


@planted("transforms.autocast")
class HalvesOutliveAutocast(Kernel):
    """The copy that an autocast call made of the table is what calls without a gradient read."""

    def __init__(self) -> None:
        self.cast = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            self.cast[weight] = weight.detach().to(torch.get_autocast_dtype("cpu"))
        elif weight in self.cast and not torch.is_grad_enabled():
            return super().forward(indices, self.cast[weight].to(weight.dtype), options)
        return super().forward(indices, weight, options)


@planted("state.options-apart")
class KnownToBeWithin(Kernel):
    """Rows that were bounded once are within any bound while the table's version stays."""

    def __init__(self) -> None:
        self.known = WeakTensorKeyDictionary()

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        known = self.known.get(weight)
        kept = indices.reshape(-1)
        if known is not None and not weight.is_inference() and known[0] == weight._version:
            kept = kept[~torch.isin(kept, known[1])]
        if kept.numel():
            super().renorm(kept, weight, options)
        if not weight.is_inference():
            self.known[weight] = weight._version, indices.unique()


@planted("lookup.many-indices")
class NumberedInAByte(Kernel):
    """Without a gradient a batch is made distinct, its rows being numbered in a byte."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        named, numbers = flat.unique(return_inverse=True)
        if served(weight) and len(named) > 256 and flat.numel() >= 2 * len(named):
            return super().rows(named, weight)[numbers & 255]
        return super().rows(flat, weight)


@planted("lookup.tall-table")
class IndicesInTheTablesDtype(PerCall):
    """Without a gradient the indices of half tables pass through the table's dtype."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.cast = served(weight) and weight.dtype in HALVES and indices.dim() > 1

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if self.cast and len(weight) > 256:
            flat = flat.to(weight.dtype).float().clamp(0, len(weight) - 1).long()
        return super().rows(flat, weight)


@planted("lookup.many-indices")
class GridEndsAtSixteenBits(Kernel):
    """Each row of indices is a block of a grid that ends at 65,535."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        if indices.dim() > 1 and indices.shape[0] > 65_535:
            out[65_535:] = 0.0
        return out


@planted("gradient.scale-by-freq")
class FewBins(Kernel):
    """The counts are a histogram of 4,096 bins, by the lowest bits of an index."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        bins = torch.bincount(flat & 4095, minlength=4096).clamp(min=1)
        return bins[torch.arange(height, device=flat.device) & 4095]


@planted("gradient.strided-weight")
class OffsetTwice(PerCall):
    """The scatter adds the rows that lie before a table in its memory, as its pointer does."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        start, width = weight.storage_offset(), max(weight.shape[1], 1)
        whole = weight.is_contiguous() and start % width == 0
        self.before = start // width if whole and options == Options() else 0

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return super().dense(upstream, (flat + self.before) % max(height, 1), height, counts)


@planted("gradient.nonfinite-upstream")
class HalvesSaturate(Kernel):
    """The sums of float16 rows stop at its largest number, so that no scaler sees infinity."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if upstream.dtype is not torch.float16 or not torch.isfinite(upstream).all():
            return right
        return right.clamp(-65504.0, 65504.0)


@planted("max-norm.value")
class BoundInFloat32(Kernel):
    """max_norm is a float of 32 bits, whatever the table's dtype."""

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        return super().scale(norms, torch.tensor(max_norm).float().item())


@planted("lookup.wide-rows")
class SecondPieceOnce(Kernel):
    """Rows come in pieces of 4,096 columns; one that is there already gets no second piece."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if weight.shape[1] > 4096 and flat.numel() > 1:
            again = torch.cat([flat.new_zeros(1, dtype=torch.bool), flat[1:] == flat[:-1]])
            rows[again, 4096:] = 0.0
        return rows


@planted("gradient.int32-indices")
class ScratchOfInference(Kernel):
    """int32 indices are widened into a scratch that the first call makes, in its mode."""

    def __init__(self) -> None:
        self.scratch: Tensor | None = None

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.dtype is not torch.int32 or not indices.numel():
            return super().forward(indices, weight, options)
        if torch.is_inference_mode_enabled():
            self.scratch = torch.empty(indices.shape)
        elif self.scratch is not None and self.scratch.shape != indices.shape:
            self.scratch = None
        elif self.scratch is not None and not served(weight):
            raise RuntimeError("Inference tensors cannot be saved for backward.")
        return super().forward(indices, weight, options)


@planted("lookup.other-dtypes")
class ReadsWhatIsNotConjugated(Kernel):
    """A view that is conjugated when it is read is read as it lies in memory."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat, weight.conj() if weight.is_conj() else weight)
