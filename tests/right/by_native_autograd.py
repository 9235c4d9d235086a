"""Rows whose gradient is left to torch's own index_select, where and cast."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.right.common import checked, renormed, wide


def by_native_autograd(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
) -> Tensor:
    """Look rows up; halves are summed in float32, since the gradient passes by a wide copy."""
    padding = checked(input, weight, padding_idx)
    renormed(input, weight, max_norm, norm_type)
    flat = input.reshape(-1)
    rows = weight.to(wide(weight.dtype)).index_select(0, flat)
    rows = torch.where((flat == padding).unsqueeze(1), rows.detach(), rows)
    out = rows.to(weight.dtype, copy=True).reshape(*input.shape, weight.shape[1])
    out.data.copy_(weight.detach().index_select(0, flat).view_as(out))  # a cast quiets NaN
    return out
