"""FBGEMM on the CPU: a table-batched embedding of one table, bags of one index each."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import AS_IT_IS, Pullback, bridge, missing, with_autograd
from embconform.reference.clause import Profile


@cache
def _operators() -> tuple[Any, Any]:
    from fbgemm_gpu.split_embedding_configs import SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        DenseTableBatchedEmbeddingBagsCodegen,
    )

    return DenseTableBatchedEmbeddingBagsCodegen, SparseType


def _bags(indices: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, Pullback | None]:
    bags, types = _operators()
    rows, width = weight.shape
    flat = indices.reshape(-1).contiguous()
    offsets = torch.arange(flat.numel() + 1, dtype=flat.dtype)

    def run(table: torch.Tensor) -> torch.Tensor:
        dtype = types.from_dtype(weight.dtype)
        with torch.random.fork_rng(devices=()):  # the constructor draws a table, the lookup none
            module = bags([(rows, width)], use_cpu=True, weights_precision=dtype)
        del module.weights  # a Parameter, and `table` is none
        module.weights = table.reshape(-1).contiguous()
        output: torch.Tensor = module(flat, offsets)
        return output.reshape(*indices.shape, width)

    return with_autograd(run, weight)


embedding = bridge(_bags, AS_IT_IS)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    if absent := missing("fbgemm_gpu", extra="fbgemm"):
        return absent
    try:
        _operators()
    except (ImportError, OSError) as error:
        return f"fbgemm_gpu does not load beside torch {torch.__version__}: {error}"
    return None


BACKEND = Backend(
    name="fbgemm",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(
        options=frozenset(), dtypes=("float32",), double_backward=False, devices=("cpu",)
    ),
    deviations=Path(__file__).with_name("fbgemm.toml"),
    source="from embconform.backends.fbgemm import embedding",
    summary="FBGEMM's dense table-batched embedding on the CPU, bags of one index",
)
