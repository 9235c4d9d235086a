"""Lookups that misread tables and indices that are views."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import HALVES, Kernel
from embconform.mutants.registry import planted


@planted("lookup.strided-weight")
class ColumnSliceReadDense(Kernel):
    """Rows of a column slice are read as if they lay end to end (PT#195185)."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        height, width = weight.shape
        if weight.stride(1) == 1 and weight.stride(0) > width:
            weight = weight.as_strided((height, width), (width, 1))
        return super().rows(flat, weight)


@planted("lookup.strided-weight")
class TransposedReadRowMajor(Kernel):
    """The column stride of a transposed table is taken to be 1."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if weight.stride(0) == 1 and weight.stride(1) > 1 and weight.shape[1] <= weight.stride(1):
            weight = weight.as_strided(weight.shape, (1, 1))
        return super().rows(flat, weight)


@planted("lookup.strided-weight")
class TableOffsetForgotten(Kernel):
    """The storage offset of a table that starts inside its base is forgotten."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat, weight.as_strided(weight.shape, weight.stride(), 0))


@planted("lookup.strided-weight")
class ExpandedTableRefused(Kernel):
    """A table of stride 0 is taken for a broken one."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if weight.numel() and weight.shape[0] > 1 and weight.stride(0) == 0:
            raise RuntimeError("bad row stride 0")
        return super().rows(flat, weight)


@planted("lookup.strided-weight")
class SteppedHalfRowsReadDense(Kernel):
    """The vectorised path for halves ignores that a table holds every second row of its base."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        height, width = weight.shape
        stepped = weight.stride(1) == 1 and weight.stride(0) >= 2 * width > 0
        if stepped and weight.dtype in HALVES:
            weight = weight.as_strided((height, width), (width, 1))
        return super().rows(flat, weight)


@planted("lookup.strided-indices")
class IndicesReadInMemoryOrder(Kernel):
    """Transposed indices are read in the order of memory (PT#63427)."""

    def flat(self, indices: Tensor) -> Tensor:
        dense = indices.dim() > 1 and indices.stride(0) == 1 and indices.numel() > 0
        if dense and not indices.is_contiguous() and indices.t().is_contiguous():
            return indices.t().reshape(-1)
        return super().flat(indices)


@planted("lookup.strided-indices")
class StepIgnored(Kernel):
    """Every second index of a buffer is asked for; the first half of the buffer is read."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.dim() == 1 and flat.numel() > 1 and flat.stride(0) > 1:
            flat = flat.as_strided(flat.shape, (1,)).clamp(0, weight.shape[0] - 1)
        return super().rows(flat, weight)


@planted("lookup.strided-indices")
class IndexOffsetForgotten(Kernel):
    """The storage offset of indices that start inside a buffer is forgotten."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.storage_offset():
            flat = flat.as_strided(flat.shape, flat.stride(), 0).clamp(0, weight.shape[0] - 1)
        return super().rows(flat, weight)


@planted("lookup.strided-indices")
class ExpandedIndicesTiled(Kernel):
    """Expanded indices are tiled; right along the first dimension, wrong along the last."""

    def flat(self, indices: Tensor) -> Tensor:
        if indices.dim() == 2 and indices.shape[1] > 1 and indices.stride(1) == 0:
            return indices[:, 0].repeat(indices.shape[1])
        return super().flat(indices)


@planted("lookup.strided-indices")
class TransposedInt32Block(Kernel):
    """Transposed int32 indices lose their order from 33 on."""

    def flat(self, indices: Tensor) -> Tensor:
        views = not indices.is_contiguous() and indices.dtype == torch.int32
        flat = super().flat(indices)
        if views and indices.numel() > 32:
            flat = torch.cat([flat[:32], flat[32:].flip(0)])
        return flat
