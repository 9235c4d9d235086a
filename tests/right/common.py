"""What every right embedding asks of its arguments, and how it renorms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

HALVES = (torch.float16, torch.bfloat16)


def checked(indices: Tensor, weight: Tensor, padding_idx: int | None) -> int:
    """Refuse what torch refuses; the padding row counted from 0, or -1 for none."""
    if indices.dtype not in (torch.int32, torch.int64):
        raise RuntimeError(f"indices must be int32 or int64, not {indices.dtype}")
    if weight.dim() != 2:
        raise RuntimeError(f"the table must be a matrix, not of {weight.dim()} dimensions")
    height = weight.shape[0]
    if padding_idx is not None and padding_idx != 0 and not -height <= padding_idx < height:
        raise AssertionError(f"padding_idx {padding_idx} is outside a table of {height} rows")
    outside = (indices < 0) | (indices >= height)
    if outside.any():
        bad = int(indices[outside][0])
        raise IndexError(f"index {bad} is out of bounds for a table of {height} rows")
    return -1 if padding_idx is None else padding_idx % max(height, 1)


@torch.no_grad()
def renormed(indices: Tensor, weight: Tensor, max_norm: float | None, norm_type: float) -> None:
    """Renorm the rows that are looked up, in place and each once."""
    if max_norm is None or not indices.numel() or not weight.shape[1]:
        return
    weight = forward_ad.unpack_dual(weight).primal  # a tangent passes by the bound
    named = indices.long().unique()
    rows = weight[named].double()
    peaks = rows.abs().amax(1, keepdim=True)
    peaks = torch.where((peaks > 1) & peaks.isfinite(), peaks, 1.0) if norm_type else peaks**0
    small = rows / peaks
    norms = torch.linalg.vector_norm(small, norm_type, dim=1, keepdim=True)
    over = norms * peaks > max_norm
    scaled = small * (max_norm / (norms + 1e-7 / peaks))
    over = over.squeeze(1)
    weight[named[over]] = scaled[over].to(weight.dtype)  # other rows keep their bits


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which gradients are summed."""
    return torch.float32 if dtype in HALVES else dtype
