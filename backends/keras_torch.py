"""Keras 3 on torch: layers.Embedding."""

from __future__ import annotations

from pathlib import Path

import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import AS_IT_IS, Pullback, bridge, missing, with_autograd
from embconform.backends.keras_layer import look_up
from embconform.reference.clause import Profile


def _call(indices: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, Pullback | None]:
    return with_autograd(lambda table: look_up("torch", indices, weight, table), weight)


embedding = bridge(_call, AS_IT_IS)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return missing("keras", extra="keras")


BACKEND = Backend(
    name="keras-torch",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(options=frozenset(), double_backward=False),
    deviations=Path(__file__).with_name("keras_torch.toml"),
    source="from embconform.backends.keras_torch import embedding",
    summary="keras.layers.Embedding on torch",
)
