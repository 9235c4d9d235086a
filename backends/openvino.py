"""OpenVINO on the CPU: the Gather that torch exports to ONNX."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import NUMPY, bridge, missing
from embconform.backends.onnxruntime import exported
from embconform.reference.clause import Profile


@cache
def _model(dtype: np.dtype[Any], index_dtype: np.dtype[Any], rank: int) -> Any:
    from openvino import Core

    core = Core()
    model = core.read_model(io.BytesIO(exported(dtype, index_dtype, rank)))
    # without these the plugin may compute in bfloat16, and copies may change
    return core.compile_model(model, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})


def _gather(indices: Any, weight: Any) -> tuple[Any, None]:
    model = _model(weight.dtype, indices.dtype, indices.ndim)
    request = model.create_infer_request()  # the model's own serves one thread at a time
    output = request.infer({"indices": indices, "weight": weight})[0]
    return np.array(output), None


embedding = bridge(_gather, NUMPY)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return missing("openvino", "onnx", "onnxscript", extra="openvino")


BACKEND = Backend(
    name="openvino",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(
        options=frozenset(),
        dtypes=("float32", "float64", "float16"),  # NumPy's arrays go in: no bfloat16
        gradient=False,
        double_backward=False,
        huge_tables=False,  # 16-bit tables are made float32 first
        devices=("cpu",),
    ),
    deviations=Path(__file__).with_name("openvino.toml"),
    source="from embconform.backends.openvino import embedding",
    summary="Gather, exported by torch.onnx, in OpenVINO on the CPU; no gradient",
)
