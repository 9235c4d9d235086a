"""Keras 3 on JAX: layers.Embedding, and its derivative by jax.vjp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import Pullback, bridge, missing
from embconform.backends.jax import EXCHANGE, with_vjp
from embconform.backends.keras_layer import look_up
from embconform.reference.clause import Profile


def _call(indices: Any, weight: Any) -> tuple[Any, Pullback]:
    return with_vjp(lambda table: look_up("jax", indices, weight, table), weight)


embedding = bridge(_call, EXCHANGE)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return missing("keras", "jax", extra="keras,jax")


BACKEND = Backend(
    name="keras-jax",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(options=frozenset(), double_backward=False, devices=("cpu",)),
    deviations=Path(__file__).with_name("keras_jax.toml"),
    source="from embconform.backends.keras_jax import embedding",
    summary="keras.layers.Embedding on JAX, gradient by jax.vjp",
)
