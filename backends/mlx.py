"""MLX on the CPU: mx.take along axis 0, and its derivative by mx.vjp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import Exchange, Pullback, bridge, missing
from embconform.reference.clause import Profile


def _enter(tensor: torch.Tensor) -> Any:
    """Make an MLX array, which always copies."""
    import mlx.core as mx

    array = mx.array(tensor)
    mx.eval(array)
    return array


def _leave(array: Any) -> torch.Tensor:
    """Make a tensor that shares the memory of an MLX array."""
    import mlx.core as mx

    mx.eval(array)
    return torch.utils.dlpack.from_dlpack(array)


def _take(indices: Any, weight: Any) -> tuple[Any, Pullback]:
    import mlx.core as mx

    def run(table: Any) -> Any:
        return mx.take(table, indices, axis=0)

    return run(weight), lambda upstream: mx.vjp(run, [weight], [upstream])[1][0]


embedding = bridge(_take, Exchange(_enter, _leave))


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    if absent := missing("mlx", extra="mlx"):
        return absent
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        return f"mlx is installed without its CPU build: {error}"
    return None


BACKEND = Backend(
    name="mlx",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(
        options=frozenset(),
        dtypes=("float32", "float16", "bfloat16"),  # float64 becomes float32
        double_backward=False,
        devices=("cpu",),
    ),
    deviations=Path(__file__).with_name("mlx.toml"),
    source="from embconform.backends.mlx import embedding",
    summary="mx.take(weight, indices, axis=0), gradient by mx.vjp",
)
