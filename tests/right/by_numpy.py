"""Rows by NumPy, gradient by numpy.add.at in long double; the answer lies in memory by columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from embconform.right.common import HALVES, checked, renormed


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()


class _Numpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, padding: int) -> Tensor:
        ctx.ids = _array(indices).astype(np.int64)  # a copy: later writes do not reach it
        ctx.call = weight.shape[0], padding
        bits = weight.view(torch.int16) if weight.dtype in HALVES else weight
        rows = np.asfortranarray(_array(bits)[ctx.ids])
        return torch.from_numpy(rows).to(weight.device).view(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Any) -> Any:
        height, padding = ctx.call
        up = upstream[0]
        sums = np.zeros((height, up.shape[-1]), np.longdouble)
        rows = _array(up.double()).reshape(ctx.ids.size, up.shape[-1])
        names = ctx.ids.reshape(-1)
        np.add.at(sums, names[names != padding], rows[names != padding])
        return torch.from_numpy(sums.astype(np.float64)).to(up.device, up.dtype), None, None


def by_numpy(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
) -> Tensor:
    """Look rows up; dense gradients, not scaled by frequency."""
    padding = checked(input, weight, padding_idx)
    renormed(input, weight, max_norm, norm_type)
    return _Numpy.apply(weight, input, padding)
