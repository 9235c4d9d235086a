"""torchao: torch.nn.Embedding with a table of int8 rows, each with a scale of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import AS_IT_IS, bridge, missing
from embconform.reference.clause import Profile


def _quantised(indices: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, None]:
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis

    rows, width = weight.shape
    module = torch.nn.Embedding(rows, width, _weight=weight.clone())
    config = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    quantize_(module, config, filter_fn=lambda module, name: True)
    with torch.no_grad():
        return module(indices), None


embedding = bridge(_quantised, AS_IT_IS)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return missing("torchao", extra="torchao")


BACKEND = Backend(
    name="torchao",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(
        options=frozenset(),
        dtypes=("float32", "float16", "bfloat16"),
        gradient=False,
        double_backward=False,
        huge_tables=False,  # quantised anew in each call
        devices=("cpu",),
    ),
    deviations=Path(__file__).with_name("torchao.toml"),
    source="from embconform.backends.torchao import embedding",
    summary="torch.nn.Embedding quantised to int8 rows by torchao; no gradient",
)
