"""Flax: nnx.Embed, and its derivative by jax.vjp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import Pullback, bridge, missing
from embconform.backends.jax import EXCHANGE, with_vjp
from embconform.reference.clause import Profile


def _embed(indices: Any, weight: Any) -> tuple[Any, Pullback]:
    from flax import nnx

    def run(table: Any) -> Any:
        layer = nnx.Embed(
            *weight.shape,
            dtype=weight.dtype,
            param_dtype=weight.dtype,
            embedding_init=lambda key, shape, dtype: table,
            rngs=nnx.Rngs(0),
        )
        return layer(indices)

    return with_vjp(run, weight)


embedding = bridge(_embed, EXCHANGE)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return missing("flax", "jax", extra="flax")


BACKEND = Backend(
    name="flax",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(options=frozenset(), double_backward=False, devices=("cpu",)),
    deviations=Path(__file__).with_name("flax.toml"),
    source="from embconform.backends.flax import embedding",
    summary="flax.nnx.Embed with the table put in, gradient by jax.vjp",
)
