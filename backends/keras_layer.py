"""What the two Keras backends have in common: a layer with a table put in."""

from __future__ import annotations

import os
from typing import Any


def look_up(engine: str, indices: Any, weight: Any, table: Any) -> Any:
    """Call keras.layers.Embedding.

    Parameters
    ----------
    engine : str
        What Keras runs on; a process has one.
    indices, weight : array
        Of the engine.
    table : array
        `weight`, or what stands for it while it is differentiated.

    Returns
    -------
    array
        The rows.

    Raises
    ------
    RuntimeError
        If Keras already runs on another engine in this process.
    """
    os.environ["KERAS_BACKEND"] = engine
    import keras

    if keras.backend.backend() != engine:
        raise RuntimeError(f"this process has Keras on {keras.backend.backend()}, not on {engine}")
    dtype = str(weight.dtype).removeprefix("torch.")
    layer = keras.layers.Embedding(*weight.shape, embeddings_initializer="zeros", dtype=dtype)
    layer.build()
    output, _ = layer.stateless_call([table], [], indices)
    return output
