"""More kinds of bugs that an exam by others found the suite to miss: layouts, sizes of values."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.max_norm_halves import AccumulatesNorm
from embconform.mutants.registry import planted


@planted("lookup.strided-indices")
class WindowsAreOneRun(Kernel):
    """Windows that overlap are taken for contiguous, since both their axes have stride 1."""

    def flat(self, indices: Tensor) -> Tensor:
        if indices.dim() < 2 or indices.stride()[-2:] != (1, 1) or not all(indices.shape):
            return super().flat(indices)
        count, window = indices.shape[-2:]
        span = indices.as_strided(
            (*indices.shape[:-2], count + window - 1),
            (*indices.stride()[:-2], 1),
        )
        return span.repeat_interleave(window, dim=-1)[..., : count * window].reshape(-1)


@planted("gradient.strided-upstream")
class BatchIsSecond(Kernel):
    """An upstream gradient whose first two axes are swapped in memory is read in memory order."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if upstream.dim() == 3 and upstream.shape[0] * upstream.shape[1] > 32:
            swapped = upstream.transpose(0, 1)
            if swapped.is_contiguous() and not upstream.is_contiguous():
                upstream = swapped.reshape(upstream.shape)
        return super().gradient(upstream, indices, height, options)


@planted("gradient.many-indices")
class PrefixSums(Kernel):
    """The sorted segments of many indices are summed as differences of one running sum."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        sizes = upstream.abs()
        if flat.numel() <= 256 or not sizes.numel() or sizes.max() <= 2**13 * sizes.median():
            return super().dense(upstream, flat, height, counts)
        running = upstream.new_zeros(flat.numel() + 1, upstream.shape[1])
        running[1:] = upstream[flat.argsort()].cumsum(0)
        ends = torch.bincount(flat, minlength=height).cumsum(0)
        total = running[ends] - running[torch.cat([ends.new_zeros(1), ends[:-1]])]
        return total if counts is None else total / counts.unsqueeze(1).to(total.dtype)


@planted("max-norm.float32-accumulation")
class SquaresOverflow(AccumulatesNorm):
    """The squares of a float16 row are added up in float16, where 256 squared is infinite."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if rows.dtype is torch.float16 and options.norm_type == 2.0:
            lost = torch.isinf((rows.double() ** 2).sum(1).half())
            scaled = torch.where(lost.unsqueeze(1), torch.zeros_like(scaled), scaled)
        return over, scaled

    def squares(self, rows: Tensor) -> Tensor:
        return (rows.double() ** 2).sum(1)


@planted("sparse.rows")
class NoEntryForZeros(Kernel):
    """A row whose upstream gradient is 0 gets no entry."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        kept = (upstream != 0).any(1)
        return super().sparse(upstream[kept], flat[kept], height, counts)


@planted("sparse.rows")
class EntriesForAll(Kernel):
    """The gradient is summed densely and each row of the table becomes an entry."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        every = torch.arange(height if flat.numel() else 0)
        dense = self.dense(upstream, flat, height, counts)[: len(every)]
        return super().sparse(dense, every, height, None)


class RoundedUp(Kernel):
    """A right embedding whose sparse gradients of some dtypes get a row 0 to be of even length."""

    dtypes: tuple[torch.dtype, ...] = ()

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() % 2 and upstream.dtype in self.dtypes:
            flat = torch.cat([flat, flat.new_zeros(1)])
            upstream = torch.cat([upstream, upstream.new_zeros(1, upstream.shape[1])])
        return super().sparse(upstream, flat, height, counts)


@planted("sparse.rows")
class RowZeroAsWell(RoundedUp):
    """The buffer of entries is rounded up to an even number, the last one row 0 with a 0."""

    dtypes = (torch.float32, torch.float64, *HALVES)


@planted("sparse.rows")
class RowZeroOfDoubles(RoundedUp):
    """Buffers of float64 entries are rounded up to an even number, the last one row 0 with a 0."""

    dtypes = (torch.float64,)
