"""Rows byte by byte into a view of a wider buffer, gradient summed pairwise; every option.

The output is a column slice of memory of its own, the dense gradient lies in memory by columns,
a sparse one is coalesced, and the renorm divides where torch multiplies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from embconform.right.common import checked

MARGIN = 16
"""Bytes beside each row of the output: a multiple of every dtype's size."""


def _refused(indices: Tensor, height: int) -> None:
    flat = indices.reshape(-1)
    bad = flat[flat.lt(0) | flat.ge(height)].tolist()
    if bad:
        raise LookupError(f"{bad[0]} names no row of {height}")


def _pairwise(rows: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
    """Sum equal names by halves until none is left; float64, names in order."""
    order = names.argsort(stable=True)
    names, rows = names[order], rows[order].double()
    while True:
        starts = torch.searchsorted(names, names)
        rank = torch.arange(len(names), device=names.device) - starts
        if not len(rank) or int(rank.amax()) == 0:
            return rows, names
        second = (rank % 2 == 1).nonzero().flatten()
        rows = rows.index_put((second - 1,), rows[second - 1] + rows[second])
        kept = rank % 2 == 0
        rows, names = rows[kept], names[kept]


class _Bytes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, call: tuple[int, bool, bool]) -> Tensor:
        ctx.save_for_backward(indices.clone())
        ctx.call = (weight.shape[0], *call)
        width = weight.shape[1]
        flat = indices.reshape(-1).long()
        size = width * weight.element_size()
        buffer = torch.full((flat.numel(), size + 2 * MARGIN), 171, dtype=torch.uint8)
        if size:
            table = weight.clone(memory_format=torch.contiguous_format).reshape(-1)
            buffer[:, MARGIN : MARGIN + size] = table.view(torch.uint8).view(-1, size)[flat]
        start = MARGIN // weight.element_size()
        buffer = buffer.to(weight.device).view(weight.dtype)
        buffer = buffer.reshape(*indices.shape, width + 2 * start)
        return buffer[..., start : start + width]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Any) -> Any:
        (indices,) = ctx.saved_tensors
        height, padding, by_freq, sparse = ctx.call
        up = upstream[0]
        flat = indices.reshape(-1).long()
        rows = up.reshape(flat.numel(), up.shape[-1])
        kept = (flat != padding).nonzero().flatten()
        sums, names = _pairwise(rows[kept], flat[kept])
        if by_freq:
            sums = sums / (flat[:, None] == names).sum(0).unsqueeze(1)
        sums = sums.to(up.dtype)
        size = (height, up.shape[-1])
        if sparse:
            coo = torch.sparse_coo_tensor(names[None], sums, size, check_invariants=False)
            return coo.coalesce(), None, None
        by_columns = up.new_zeros(up.shape[-1], height).t()
        return by_columns.index_copy_(0, names, sums), None, None


@torch.no_grad()
def _bound(indices: Tensor, weight: Tensor, max_norm: float, norm_type: float) -> None:
    """Divide each distinct long row by (norm + 1e-7) / max_norm, in float64."""
    for row in indices.reshape(-1).unique().tolist():
        wide = weight[row].double()
        peak = wide.abs().amax() if wide.isfinite().all() and norm_type > 0 else wide.new_ones(())
        peak = peak if peak > 1 else torch.ones_like(peak)
        norm = torch.linalg.vector_norm(wide / peak, norm_type)
        if not norm * peak > max_norm:
            continue
        if max_norm == 0:
            weight[row] = wide * 0.0
        else:
            weight[row] = (wide / peak / ((norm + 1e-7 / peak) / max_norm)).to(weight.dtype)


def by_bytes(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    *,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Look rows up; what is refused raises LookupError."""
    if weight.dim() == 2 and input.dtype in (torch.int32, torch.int64):
        _refused(input, weight.shape[0])
    padding = checked(input, weight, padding_idx)
    if max_norm is not None and weight.shape[1]:
        _bound(input, weight, max_norm, norm_type)
    return _Bytes.apply(weight, input, (padding, scale_grad_by_freq, sparse))
