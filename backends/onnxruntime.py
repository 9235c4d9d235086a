"""ONNX Runtime: the Gather that torch exports."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import NUMPY, bridge, missing
from embconform.reference.clause import Profile


class _Lookup(torch.nn.Module):
    def forward(self, indices: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(indices, weight)


@cache
def exported(dtype: np.dtype[Any], index_dtype: np.dtype[Any], rank: int) -> bytes:
    """Export torch.nn.functional.embedding with dynamic sizes.

    Parameters
    ----------
    dtype, index_dtype : numpy.dtype
    rank : int
        Dimensions of the indices.

    Returns
    -------
    bytes
        An ONNX model with inputs ``indices`` and ``weight``.
    """
    indices, weight = np.zeros((3,) * rank, index_dtype), np.zeros((4, 5), dtype)
    arguments = (torch.from_numpy(indices), torch.from_numpy(weight))
    dynamic = tuple(
        dict.fromkeys(range(each.dim()), torch.export.Dim.DYNAMIC) for each in arguments
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Lookup(), arguments, dynamo=True, dynamic_shapes=dynamic, verbose=False
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


@cache
def _session(dtype: np.dtype[Any], index_dtype: np.dtype[Any], rank: int) -> Any:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 4  # a bad index is printed, too
    model = exported(dtype, index_dtype, rank)
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _gather(indices: Any, weight: Any) -> tuple[Any, None]:
    session = _session(weight.dtype, indices.dtype, indices.ndim)
    (output,) = session.run(None, {"indices": indices, "weight": weight})
    return output, None


embedding = bridge(_gather, NUMPY)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return missing("onnxruntime", "onnx", "onnxscript", extra="onnxruntime")


BACKEND = Backend(
    name="onnxruntime",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(
        options=frozenset(),
        dtypes=("float32", "float64", "float16"),  # run() takes NumPy's arrays: no bfloat16
        gradient=False,
        double_backward=False,
        devices=("cpu",),
    ),
    deviations=Path(__file__).with_name("onnxruntime.toml"),
    source="from embconform.backends.onnxruntime import embedding",
    summary="Gather, exported by torch.onnx, in ONNX Runtime on the CPU; no gradient",
)
