"""Wrong sparse gradients."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.percall import PerCall, rank_among_equals
from embconform.mutants.registry import planted


@planted("sparse.layout")
class SparseFlagIgnored(Kernel):
    """sparse=True is accepted and the gradient is dense (pytorch/pytorch#4666)."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return self.dense(upstream, flat, height, counts)


@planted("sparse.layout")
class SparseInBothDimensions(Kernel):
    """Every element is an entry of its own: two sparse dimensions, which optimisers refuse."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return super().sparse(upstream, flat, height, counts).to_dense().to_sparse(2)


@planted("sparse.layout")
class DenseWhenFull(Kernel):
    """A sparse gradient with more entries than the table has rows is made dense unasked."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().sparse(upstream, flat, height, counts)
        return right.to_dense() if flat.numel() > height else right


@planted("sparse.equals-dense")
class SparseWithoutRepeats(Kernel):
    """Equal indices become one entry, with the value of the first."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        first = rank_among_equals(flat) == 0
        return super().sparse(upstream[first], flat[first], height, counts)


@planted("sparse.equals-dense")
class SortsOnlyTheIndices(Kernel):
    """The indices of the entries are sorted and the values stay where they were."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return super().sparse(upstream, flat.sort().values, height, counts)


@planted("sparse.equals-dense")
class SparseColumnMajor(Kernel):
    """Transposed indices: the entries' rows are read in memory order, their values are not."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if options.sparse and indices.dim() == 2 and not indices.is_contiguous():
            indices = indices.t().reshape(indices.shape)
        return super().gradient(upstream, indices, height, options)


@planted("sparse.many-indices")
class SparseBlocks(Kernel):
    """Entries are written in blocks of 256, an unfinished last block only if it is the first."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        number = flat.numel() if flat.numel() < 256 else flat.numel() // 256 * 256
        return super().sparse(upstream[:number], flat[:number], height, counts)


@planted("sparse.many-indices")
class CoalescesToTheMean(Kernel):
    """More than 1000 entries are merged to save memory, by their mean instead of their sum."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() <= 1000:
            return super().sparse(upstream, flat, height, counts)
        mean = self.dense(upstream, flat, height, self.counts(flat, height))
        named = flat.unique()
        return super().sparse(mean[named], named, height, counts)


@planted("sparse.padding-excluded")
class SparseCountsPadding(Kernel):
    """The sparse path has no padding mask (pytorch/pytorch#3506)."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.sparse:
            return flat, upstream
        return super().without_padding(flat, upstream, options)


@planted("sparse.padding-excluded")
class PaddingShiftsTheValues(Kernel):
    """Padding is taken out of the entries' indices, but of their values the last are cut off."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        kept, values = super().without_padding(flat, upstream, options)
        return kept, upstream[: kept.numel()] if options.sparse else values


@planted("sparse.padding-excluded")
class SparseNegativePadding(Kernel):
    """A negative padding_idx is counted from the end in the dense path only (cf. pytorch#3233)."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        super().padding(padding_idx, rows)
        return padding_idx

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if options.padding_idx is not None and not options.sparse:
            real = super().padding(options.padding_idx, weight.shape[0])
            options = replace(options, padding_idx=real)
        return super().forward(indices, weight, options)


@planted("sparse.all-padding")
class NothingLeftRaises(Kernel):
    """A batch of nothing but padding leaves no entry and breaks (pytorch/pytorch#5472)."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.given and not flat.numel():
            raise RuntimeError("cannot build a sparse tensor from no entries")
        return super().sparse(upstream, flat, height, counts)

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        self.given = indices.numel()
        return super().gradient(upstream, indices, height, options)


@planted("sparse.all-padding")
class NothingLeftKeepsAll(Kernel):
    """A mask that leaves no entry is taken for no mask."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        kept, values = super().without_padding(flat, upstream, options)
        return (kept, values) if kept.numel() or not options.sparse else (flat, upstream)


@planted("sparse.scalar-index")
class ScalarWithPaddingRaises(Kernel):
    """A 0-d index can't be masked: with padding_idx the pass raises, as in torch 2.13."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if options.sparse and options.padding_idx is not None:
            kept = (indices != options.padding_idx).nonzero(as_tuple=True)
            indices, upstream = indices.index_select(0, kept[0]), upstream[kept]
        return super().gradient(upstream, indices, height, options)


@planted("sparse.scalar-index")
class ScalarIsRowZero(Kernel):
    """The entry of a 0-d index is given its position, 0, for its row."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if options.sparse and indices.dim() == 0 and options.padding_idx is None:
            indices = torch.zeros_like(indices)
        return super().gradient(upstream, indices, height, options)


@planted("sparse.empty")
class NoIndicesRaise(Kernel):
    """The rows of the entries are checked by their maximum, which nothing has."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        assert not options.sparse or int(indices.max()) < height
        return super().gradient(upstream, indices, height, options)


@planted("sparse.empty")
class OneEntryAtLeast(Kernel):
    """Room for one entry is made at least, and nobody clears it."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if not flat.numel() and not self.given and height:
            flat, upstream = flat.new_zeros(1), upstream.new_full((1, upstream.shape[1]), 1e-3)
        return super().sparse(upstream, flat, height, counts)

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        self.given = indices.numel()
        return super().gradient(upstream, indices, height, options)


@planted("sparse.accumulates")
class SparseSecondPass(PerCall):
    """A second backward gives garbage, the indices being sorted by now (pytorch/pytorch#17919)."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.kept = indices.reshape(-1).clone()

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if not options.sparse:
            return super().gradient(upstream, indices, height, options)
        order = self.kept.argsort(stable=True)
        self.kept = self.kept[order]
        upstream = upstream.reshape(order.numel(), upstream.shape[-1])[order]
        return super().gradient(upstream, self.kept, height, options)


@planted("sparse.accumulates")
class SparseReplaces(PerCall):
    """A sparse gradient that is there is dropped, since sparse tensors are awkward to add."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.table = weight

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.table.is_leaf:
            self.table.grad = None
        return super().sparse(upstream, flat, height, counts)


@planted("sparse.accumulates")
class SharesItsValues(Kernel):
    """One buffer a shape holds the entries' values, so a later pass overwrites earlier entries."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if counts is not None:
            return super().sparse(upstream, flat, height, counts)
        before = self.values.get((height, upstream.shape, upstream.dtype))
        values = upstream.clone() if before is None else before.copy_(upstream)
        self.values[height, upstream.shape, upstream.dtype] = values
        rows = flat.unsqueeze(0).clone()
        size = (height, upstream.shape[1])
        return torch.sparse_coo_tensor(rows, values, size, check_invariants=False)

    def __init__(self) -> None:
        self.values: dict[object, Tensor] = {}


@planted("sparse.scale-by-freq")
class SparseScaleIgnored(Kernel):
    """With sparse=True the scale is neither applied nor refused."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return super().sparse(upstream, flat, height, None)


@planted("sparse.scale-by-freq")
class SparseScaleWithPadding(Kernel):
    """The scale is refused as in torch, but not where padding_idx takes another path."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if options.sparse and options.scale_grad_by_freq:
            if options.padding_idx is None:
                raise RuntimeError("scale_grad_by_freq is not supported with sparse gradients")
            options = replace(options, scale_grad_by_freq=False)
        return super().gradient(upstream, indices, height, options)


@planted("sparse.owns-its-memory")
class KeepsTheCallersIndices(Kernel):
    """The gradient's indices are the caller's tensor, as torch's own are (docs/findings.md)."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        gradient = super().sparse(upstream, flat, height, counts)
        rows, size = flat.unsqueeze(0), gradient.shape
        return torch.sparse_coo_tensor(rows, gradient._values(), size, check_invariants=False)


@planted("sparse.owns-its-memory")
class KeepsTheCallersUpstream(Kernel):
    """The gradient's values are the upstream gradient that the caller handed in."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        gradient = super().sparse(upstream, flat, height, counts)
        if counts is not None:
            return gradient
        rows, size = gradient._indices(), gradient.shape
        return torch.sparse_coo_tensor(rows, upstream, size, check_invariants=False)
