"""tinygrad: nn.Embedding, and its derivative by backward()."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.catalogue import describe
from embconform.backends.foreign import NUMPY, Pullback, bridge, missing
from embconform.reference.clause import Profile

_only_thread: Final = ThreadPoolExecutor(1, "tinygrad")
"""tinygrad serves the first thread that calls it, and no other: docs/findings.md."""


def _in_turn(indices: Any, weight: Any) -> tuple[Any, Pullback]:
    output, pull = _only_thread.submit(_call, indices, weight).result()
    return output, lambda upstream: _only_thread.submit(pull, upstream).result()


def _call(indices: Any, weight: Any) -> tuple[Any, Pullback]:
    from tinygrad import Tensor
    from tinygrad.nn import Embedding

    layer = Embedding(*weight.shape)
    table = layer.weight = Tensor(np.ascontiguousarray(weight))
    output = layer(Tensor(np.ascontiguousarray(indices)))

    def pull(upstream: Any) -> Any:
        (gradient,) = output.gradient(table, gradient=Tensor(np.ascontiguousarray(upstream)))
        return gradient.numpy()

    return output.numpy(), pull


embedding = bridge(_in_turn, NUMPY)


def _open_device() -> None:
    from tinygrad import Device

    Device[Device.DEFAULT].compiler  # noqa: B018


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    if absent := missing("tinygrad", extra="tinygrad"):
        return absent
    try:
        _only_thread.submit(_open_device).result()
    except Exception as error:
        return f"tinygrad finds no device, whose CPU one needs clang: {describe(error)}"
    return None


BACKEND = Backend(
    name="tinygrad",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(
        options=frozenset(),
        dtypes=("float32", "float64", "float16"),
        double_backward=False,
        huge_tables=False,  # reads every row for each index
        devices=("cpu",),
    ),
    compiled=True,
    sizes_compiled=True,
    deviations=Path(__file__).with_name("tinygrad.toml"),
    source="from embconform.backends.tinygrad import embedding",
    summary="tinygrad.nn.Embedding with the table put in, on the CPU",
)
