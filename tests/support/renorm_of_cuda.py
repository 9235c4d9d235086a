"""max_norm as `renorm_kernel` of ATen's Embedding.cu computes it, here on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from embconform.backends.backend import Backend
from embconform.backends.through import EmbeddingThrough
from embconform.reference.clause import Profile


@torch.no_grad()
def renorm(weight: Tensor, indices: Tensor, max_norm: float, p: float) -> None:
    """Scale what the kernel takes for the rows, except for what lies beyond the storage."""
    if not indices.numel():
        raise RuntimeError("CUDA error: invalid argument")
    size = weight.untyped_storage().nbytes() // weight.element_size()
    memory = weight.detach().as_strided((size,), (1,), 0)
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    dim = weight.stride(0)
    for index in indices.unique().tolist():
        start = weight.storage_offset() + index * weight.stride(0)
        places = start + torch.arange(dim) * weight.stride(1)
        places = places[(places >= 0) & (places < size)]
        row = memory[places].to(wide)
        total = row.abs().sum() if p == 1 else (row**p).sum()
        norm = total ** (1 / p)
        if norm > max_norm:
            memory[places] *= (max_norm / (norm + 1e-7)).to(weight.dtype)


def look_up(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    *,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    **options: Any,
) -> Tensor:
    """Renorm as CUDA does, then look up as the CPU does."""
    if max_norm is not None and weight.dim() == 2 and not input.is_floating_point():
        renorm(weight, input, max_norm, norm_type)
    return embedding(input, weight, **options)


class Embedding(EmbeddingThrough):
    """A torch.nn.Embedding that looks up so."""

    lookup = staticmethod(look_up)


BACKEND = Backend("renorm of cuda", functional=look_up, module=Embedding, profiles=(Profile.TORCH,))
