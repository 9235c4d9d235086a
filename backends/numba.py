"""Numba: weight[indices] in a compiled function, and a compiled loop for the gradient."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import NUMPY, Pullback, bridge, missing
from embconform.reference.clause import Profile


@cache
def _compiled() -> tuple[Any, Any]:
    from numba import njit

    @njit  # type: ignore[untyped-decorator]
    def look_up(indices: Any, weight: Any) -> Any:
        return weight[indices]

    @njit  # type: ignore[untyped-decorator]
    def add_rows(gradient: Any, indices: Any, upstream: Any) -> None:
        for position in range(indices.size):
            gradient[indices[position]] += upstream[position]

    return look_up, add_rows


def _rows(indices: Any, weight: Any) -> tuple[Any, Pullback]:
    look_up, add_rows = _compiled()
    shape, width, dtype = weight.shape, weight.shape[1], weight.dtype

    def pull(upstream: Any) -> Any:
        gradient = np.zeros(shape, dtype)
        add_rows(gradient, indices.reshape(-1), upstream.reshape(indices.size, width))
        return gradient

    flat = look_up(indices.reshape(-1), weight)  # Numba takes one array of indices of one dimension
    return flat.reshape(*indices.shape, width), pull


embedding = bridge(_rows, NUMPY)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return missing("numba", extra="numba")


BACKEND = Backend(
    name="numba",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(
        options=frozenset(),
        dtypes=("float32", "float64"),  # Numba has no 16-bit floats on the CPU
        double_backward=False,
        devices=("cpu",),
    ),
    deviations=Path(__file__).with_name("numba.toml"),
    source="from embconform.backends.numba import embedding",
    summary="weight[indices] under numba.njit, and a loop for the gradient",
)
