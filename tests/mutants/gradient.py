"""Wrong gradients: sums, dtypes, layouts and the sizes at which kernels switch."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.percall import PerCall, as_if_contiguous, in_memory_order, rank_among_equals
from embconform.mutants.registry import planted


@planted("gradient.sum")
class LastWriterWins(Kernel):
    """A scatter without its add: of equal indices only the last counts."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        last = rank_among_equals(flat.flip(0)).flip(0) == 0
        return super().dense(upstream[last], flat[last], height, counts)


@planted("gradient.sum")
class NeedsSortedIndices(Kernel):
    """Sums runs of equal neighbours and stores each run: equal indices further apart are lost."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        ahead = torch.full_like(flat[:1], -1)
        run = (flat != torch.cat([ahead, flat[:-1]])).cumsum(0)
        last_run = torch.zeros(height, dtype=run.dtype).scatter_reduce_(0, flat, run, "amax")
        kept = run == last_run[flat]
        return super().dense(upstream[kept], flat[kept], height, counts)


@planted("gradient.sum")
class UnrolledByFour(Kernel):
    """A row's terms are added four at a time, and those after the last full four are forgotten."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        total = torch.bincount(flat, minlength=height)[flat]
        kept = (total < 4) | (rank_among_equals(flat) < total // 4 * 4)
        return super().dense(upstream[kept], flat[kept], height, counts)


@planted("gradient.float64")
class SumsInFloat32(Kernel):
    """One accumulator type for all tables: float64 gradients keep 24 bits."""

    def accumulator(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float32


@planted("gradient.float64")
class FastPathInFloat32(Kernel):
    """The path for repeated indices, written for float32, also takes float64 tables."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        repeated = torch.bincount(flat, minlength=height) > 1
        return torch.where(repeated.unsqueeze(1), right.float().to(right.dtype), right)


@planted("gradient.half-precision")
class PackedHalfAtomics(Kernel):
    """Float16 is added in pairs; the odd last column is stored instead of added."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if upstream.dtype == torch.float16 and upstream.shape[1] % 2:
            last = rank_among_equals(flat.flip(0)).flip(0) == 0
            right[flat[last], -1] = upstream[last, -1]
        return right


@planted("gradient.half-precision")
class CompressesHalves(Kernel):
    """The upstream gradient of half-precision tables goes through 8 bits to save bandwidth."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if upstream.dtype in HALVES:
            upstream = upstream.to(torch.float8_e4m3fn).to(upstream.dtype)
        return super().dense(upstream, flat, height, counts)


@planted("gradient.float32-accumulation")
class BfloatSaturates(Kernel):
    """Sums in the table's dtype: a thousand ones in bfloat16 stop at 256 (MXNet#17703)."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if upstream.dtype not in HALVES:
            return super().dense(upstream, flat, height, counts)
        total = upstream.new_zeros(height, upstream.shape[1])
        total.index_put_((flat,), upstream, accumulate=True)  # index_add_ sums in float32
        return total if counts is None else total / counts.unsqueeze(1).to(total.dtype)


@planted("gradient.float32-accumulation")
class PartialSumsInHalf(Kernel):
    """Blocks of 32 are summed in float32, but the blocks' sums meet in the table's dtype."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if upstream.dtype not in HALVES or flat.numel() <= 32:
            return super().dense(upstream, flat, height, counts)
        total = upstream.new_zeros(height, upstream.shape[1])
        for part, ids in zip(upstream.split(32), flat.split(32), strict=True):
            total += super().dense(part, ids, height, None)
        return total if counts is None else total / counts.unsqueeze(1).to(total.dtype)


@planted("gradient.zeros-elsewhere")
class DirtyArena(Kernel):
    """The gradient's memory is reused, and only the rows that this call names are cleared."""

    arena = torch.zeros(0, dtype=torch.float64)

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if self.arena.numel() < right.numel():
            grown = torch.zeros(right.numel(), dtype=torch.float64)
            grown[: self.arena.numel()] = self.arena
            self.arena = grown
        memory = self.arena[: right.numel()].view(right.shape)
        memory[flat] = right[flat].double()
        return memory.to(right.dtype)


@planted("gradient.zeros-elsewhere")
class OneHotProduct(Kernel):
    """The gradient as one_hot(ids).T @ upstream: an Inf times 0 spreads NaN over all rows."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        spread = (0 * upstream).sum(0)  # 0, or NaN in columns that hold Inf or NaN
        return right if height == 1 else right + torch.where(spread == 0, 0.0, spread)


@planted("gradient.shape-and-dtype")
class SparseWhenTall(Kernel):
    """Saves memory unasked: the gradient of a table with many unnamed rows comes sparse."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if height > 8 * max(flat.numel(), 1):
            return self.sparse(upstream, flat, height, counts)
        return super().dense(upstream, flat, height, counts)


@planted("gradient.shape-and-dtype")
class SparseSticks(Kernel):
    """The flag of one call stays set: after a sparse call every gradient is sparse."""

    sticky = False

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        self.sticky = self.sticky or options.sparse
        return super().gradient(upstream, indices, height, options)

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        build = self.sparse if self.sticky else super().dense
        return build(upstream, flat, height, counts)


@planted("gradient.int32-indices")
class Int32Pairs(Kernel):
    """The backward pass loads int32 indices two at a time and leaves an odd one out."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if indices.dtype == torch.int32 and indices.numel() % 2:
            upstream = upstream.reshape(indices.numel(), -1)[:-1]
            indices = indices.reshape(-1)[:-1]
        return super().gradient(upstream, indices, height, options)


@planted("gradient.int32-indices")
class Int32Positions(Kernel):
    """With int32 indices positions are kept in a byte: from the 256th on the wrong row is read."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.narrow:
            upstream = upstream[torch.arange(flat.numel()) % 256]
        return super().dense(upstream, flat, height, counts)

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        self.narrow = indices.dtype == torch.int32
        return super().gradient(upstream, indices, height, options)


@planted("gradient.strided-weight")
class TransposedLikeTheTable(PerCall):
    """A gradient allocated like a transposed table and filled as if it were contiguous."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.transposed = weight.stride(0) < weight.stride(1) and min(weight.shape) > 1

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        return right.reshape(right.shape[::-1]).t() if self.transposed else right


@planted("gradient.strided-weight")
class PitchFromStride(PerCall):
    """The gradient's row width is taken from the table's stride(0) (pytorch/pytorch#195185)."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.pitch = weight.stride(0) if weight.shape[0] > 1 else weight.shape[1]

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        row = flat * self.pitch // max(upstream.shape[1], 1)
        inside = row < height
        return super().dense(upstream[inside], row[inside], height, counts)


@planted("gradient.strided-indices")
class TransposedIndices(Kernel):
    """The backward pass walks transposed indices in memory order (pytorch/pytorch#63427)."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        return super().gradient(upstream, in_memory_order(indices), height, options)


@planted("gradient.strided-indices")
class SteppedIndices(Kernel):
    """The backward pass takes the step of one-dimensional indices for 1."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if indices.dim() == 1 and not indices.is_contiguous():
            indices = as_if_contiguous(indices) % height
        return super().gradient(upstream, indices, height, options)


@planted("gradient.strided-upstream")
class UpstreamInMemoryOrder(Kernel):
    """A permuted upstream gradient is read as it lies in memory (pytorch/pytorch#81528)."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        dense = in_memory_order(upstream).is_contiguous() and upstream.numel() > 0
        upstream = as_if_contiguous(upstream) if dense else upstream
        return super().gradient(upstream, indices, height, options)


@planted("gradient.strided-upstream")
class UpstreamFromACat(Kernel):
    """An upstream gradient cut out of wider rows, as cat gives it, is read without their pitch."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if upstream.dim() > 1 and upstream.stride(-2) > upstream.shape[-1]:
            upstream = as_if_contiguous(upstream)
        return super().gradient(upstream, indices, height, options)


@planted("gradient.many-indices")
class LosesTheRemainder(Kernel):
    """Above 1000 indices four threads share the rows, and V % 4 rows have no thread."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() > 1000:
            shared = flat < height // 4 * 4
            upstream, flat = upstream[shared], flat[shared]
        return super().dense(upstream, flat, height, counts)


@planted("gradient.many-indices")
class DropsTheFirstOfTheSecondBlock(Kernel):
    """From 769 indices on one is dropped where two blocks meet (pytorch/pytorch#26302)."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        kept = torch.arange(flat.numel()) != 768
        return super().dense(upstream[kept], flat[kept], height, counts)


@planted("gradient.many-indices")
class LoneLane(Kernel):
    """The last warp is launched only if it has two indices or more: 33, 65, 129 lose their last."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() > 32 and flat.numel() % 32 == 1:
            upstream, flat = upstream[:-1], flat[:-1]
        return super().dense(upstream, flat, height, counts)


@planted("gradient.many-indices")
class GridLimit(Kernel):
    """One block an index, and 65,535 blocks at most: later indices have no gradient."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return super().dense(upstream[:65535], flat[:65535], height, counts)


@planted("gradient.hot-rows")
class ShortQueue(Kernel):
    """A row's queue holds 1024 terms; those that come later are lost."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        kept = rank_among_equals(flat) < 1024
        return super().dense(upstream[kept], flat[kept], height, counts)


@planted("gradient.hot-rows")
class HotRowsInHalf(Kernel):
    """Rows named more than 512 times are summed in float16 and saturate (tt-metal#53386)."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        hot = torch.bincount(flat, minlength=height) > 512
        if counts is None and upstream.dtype == torch.float32 and hot.any():
            half = torch.zeros_like(right, dtype=torch.float16)
            half.index_add_(0, flat, upstream.half())
            right[hot] = half[hot].float()
        return right


@planted("gradient.wide-rows")
class OneThreadAColumn(Kernel):
    """A block has 1024 threads and a thread one column: columns beyond get no gradient."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        right[:, 1024:] = 0
        return right


@planted("gradient.wide-rows")
class VectorTail(Kernel):
    """Rows wider than 128 are handled four columns at a time; D % 4 columns are left over."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if right.shape[1] > 128:
            right[:, right.shape[1] // 4 * 4 :] = 0
        return right


@planted("gradient.wide-rows")
class WideRowsDontAdd(Kernel):
    """Rows of 256 columns or more are stored by a block each: equal indices overwrite."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if upstream.shape[1] >= 256:
            last = rank_among_equals(flat.flip(0)).flip(0) == 0
            upstream, flat = upstream[last], flat[last]
        return super().dense(upstream, flat, height, counts)
