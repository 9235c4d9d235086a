"""JAX: jnp.take along axis 0, and its derivative by jax.vjp."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import Exchange, Pullback, bridge, missing
from embconform.reference.clause import Profile


@cache
def jax() -> Any:
    """Import JAX, and let it have float64 and int64, which it has to be asked for."""
    import jax as module

    module.config.update("jax_enable_x64", True)
    return module


def enter(tensor: torch.Tensor) -> Any:
    """Make a JAX array; it shares the memory of a compact tensor, any other is copied first."""
    compact = tensor if tensor.is_contiguous() else tensor.contiguous()
    return jax().dlpack.from_dlpack(compact)


def leave(array: Any) -> torch.Tensor:
    """Make a tensor that shares the memory of a JAX array."""
    return torch.utils.dlpack.from_dlpack(array.block_until_ready())


EXCHANGE = Exchange(enter, leave)


def with_vjp(run: Callable[[Any], Any], weight: Any) -> tuple[Any, Pullback]:
    """Take the derivative of a library that is made of JAX's operators.

    Parameters
    ----------
    run : callable
        From the table to the output.
    weight : jax.Array

    Returns
    -------
    tuple of jax.Array and callable
        As a :data:`~embconform.backends.foreign.Lookup` gives them.
    """
    output, pull = jax().vjp(run, weight)
    output.block_until_ready()  # the caller may write to the table next
    return output, lambda upstream: pull(upstream)[0]


def _take(indices: Any, weight: Any) -> tuple[Any, Pullback]:
    return with_vjp(lambda table: jax().numpy.take(table, indices, axis=0), weight)


embedding = bridge(_take, EXCHANGE)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return missing("jax", extra="jax")


BACKEND = Backend(
    name="jax",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(options=frozenset(), double_backward=False, devices=("cpu",)),
    deviations=Path(__file__).with_name("jax.toml"),
    source="from embconform.backends.jax import embedding",
    summary="jnp.take(weight, indices, axis=0), gradient by jax.vjp",
)
