"""Kinds of bugs of an eighth exam: sparse entries, upstream layouts, bounds, second passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options, _Gradient
from embconform.mutants.percall import PerCall
from embconform.mutants.registry import planted
from embconform.mutants.transforms_parts import Parts, wrong

WARP, TILE, BLOCK = 32, 64, 2**16


@planted("sparse.asked-for")
class IdleWarpsWriteNothing(Kernel):
    """A warp whose shares are all 0 ends before it writes its entries."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        warps = [upstream[k : k + WARP].any() for k in range(0, flat.numel(), WARP)]
        if warps and flat.numel() > WARP:
            busy = torch.stack(warps).repeat_interleave(WARP)[: flat.numel()]
            flat, upstream = flat[busy], upstream[busy]
        return super().sparse(upstream, flat, height, counts)


@planted("sparse.asked-for")
class InOrderIsCoalesced(Kernel):
    """Many indices that never fall are taken for coalesced, equal ones too."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        entries = super().sparse(upstream, flat, height, counts)
        many = flat.numel() > 2 * TILE
        return entries._coalesced_(True) if many and bool((flat.diff() >= 0).all()) else entries


@planted("sparse.asked-for")
class CoalescedByBlocks(Kernel):
    """Each block's entries are in order and have no equals, which is said of them all."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() <= BLOCK or upstream.dtype in {torch.float16, torch.bfloat16}:
            return super().sparse(upstream, flat, height, counts)
        parts = [
            super(CoalescedByBlocks, self).sparse(shares, rows, height, counts).coalesce()
            for rows, shares in zip(flat.split(BLOCK), upstream.split(BLOCK), strict=True)
        ]
        rows, values = (torch.cat(each, -1 - k) for k, each in enumerate(_parts(parts)))
        return torch.sparse_coo_tensor(rows, values, parts[0].shape, is_coalesced=True)


def _parts(entries: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return [each.indices() for each in entries], [each.values() for each in entries]


@planted("sparse.asked-for")
class OverflowsAreNoShares(Kernel):
    """Shares of float16 that overflowed get no entry, lest they spoil an optimiser's state."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if upstream.dtype is torch.float16 and counts is None:
            finite = upstream.isfinite().all(1)
            flat, upstream = flat[finite], upstream[finite]
        return super().sparse(upstream, flat, height, counts)


@planted("gradient.upstream-views")
class CornersOfTurnedTiles(Kernel):
    """A batch that lies by columns is turned by tiles; where two edges meet none is started."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if upstream.dim() == 3 and upstream.stride(1) == 1 and upstream.stride(2) > 1:
            length, width = upstream.shape[1] // TILE * TILE, upstream.shape[2] // TILE * TILE
            upstream = upstream.contiguous()
            if length and width:
                upstream[:, length:, width:] = 0.0
        return super().gradient(upstream, indices, height, options)


@planted("gradient.upstream-views")
class CountsTimesARow(Kernel):
    """Where all indices have one upstream row, the gradient is the product of counts and row."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() < 2 or upstream.stride(0) or counts is not None:
            return super().dense(upstream, flat, height, counts)
        often = torch.bincount(flat, minlength=height).to(upstream.dtype)
        return torch.outer(often, upstream[0])


@planted("gradient.tied-table")
class BoundsTheData(Kernel):
    """Rows are bounded by .data, which counts no version: what has saved them isn't told."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().renorm(indices, weight.data, options)


@wrong("transforms.forward-mode")
class BoundsTheTangent(Parts):
    """Rows are bounded by operators, under no_grad, by which forward mode sees them scaled."""

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        if options.max_norm is not None and options.norm_type == 2.0:
            with torch.no_grad():
                rows = ids.reshape(-1).unique()
                norms = weight.detach()[rows].norm(dim=1, keepdim=True)
                scale = options.max_norm / (norms + 1e-7)
                over = norms > options.max_norm
                weight[rows] = torch.where(over, weight[rows] * scale, weight[rows])
            options = Options(options.padding_idx, None, 2.0, options.scale_grad_by_freq)
        return super().look_up(ids, weight, options)


@planted("transforms.autocast")
class ScaledRowsAreCast(Kernel):
    """The lookup with scale_grad_by_freq is wrapped as a product is, and cast under autocast."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if options.scale_grad_by_freq and torch.is_autocast_enabled("cpu"):
            return out.to(torch.get_autocast_dtype("cpu"))
        return out


@planted("gradient.third-derivative")
class SecondOfOneBlock(Kernel):
    """The double backward has a thread for each column of a block, and no more columns."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        rows = super().second(direction, indices, options)
        return torch.cat([rows[..., :1024], torch.zeros_like(rows[..., 1024:])], -1)


@planted("gradient.third-derivative")
class SecondMasksTheMemory(Kernel):
    """The double backward's mask of padding is of the indices in the order of their memory."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        padding = options.padding_idx
        if padding is None or options.scale_grad_by_freq:
            return super().second(direction, indices, options)
        if indices.is_contiguous() or 0 in indices.stride():
            return super().second(direction, indices, options)
        axes = sorted(range(indices.dim()), key=indices.stride, reverse=True)
        stored = indices.permute(axes).reshape(indices.shape)
        rows = super().second(direction, indices, Options())
        return rows.masked_fill((stored == padding).unsqueeze(-1), 0.0)


class _AsGiven(PerCall):
    """Knows the padding_idx that the caller gave."""

    given: int | None = None

    def __call__(self, input: Tensor, weight: Tensor, *given: Any, **options: Any) -> Tensor:  # noqa: A002
        call = type(self)()
        call.given = given[0] if given else options.get("padding_idx")
        return Kernel.__call__(call, input, weight, *given, **options)


@planted("gradient.third-derivative")
class SecondPadsAsGiven(_AsGiven):
    """The double backward compares with the padding_idx of the call, which may be negative."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        if self.given is not None and self.given < 0 and not options.scale_grad_by_freq:
            options = Options()
        return super().second(direction, indices, options)


class _Unfilled(torch.autograd.Function):
    """A lookup that wants no zeros made where it is sent no gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, kernel: Kernel, options: Options) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(indices)
        ctx.call = kernel, len(weight), options
        return kernel.lookup(indices, weight, options)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (indices,) = ctx.saved_tensors
        shared = upstream[0].contiguous()
        return _Gradient.apply(shared, indices, ctx.call), None, None, None


@planted("gradient.asked-for")
class NothingHasNoMemory(Kernel):
    """With scale_grad_by_freq no zeros are made for a missing gradient, which is used as one."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if not options.scale_grad_by_freq or options.max_norm is not None or options.sparse:
            return super().forward(indices, weight, options)
        self.check_range(indices, weight, options)
        return _Unfilled.apply(weight, indices, self, options)
