"""Imports Triton, with its interpreter where torch finds no CUDA device.

Triton reads TRITON_INTERPRET when it is first imported: its own library is compiled or interpreted
from then on. So this is where the choice is made (and in backends/triton.py, which torch.library
would otherwise be ahead of), and everything else takes `triton` and `tl` from here. A value that is
already in the environment stands: ``TRITON_INTERPRET=0`` without a device gives kernels that can be
compiled for a named target, and not launched.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder, TensorHandle

__all__ = ["INTERPRETED", "LAUNCHES_EARLY", "tl", "triton"]

INTERPRETED: bool = isinstance(tl.cdiv, InterpretedFunction)
"""Whether kernels run on the CPU, one program after the other, as NumPy operations."""

if triton.knobs.runtime.interpret != INTERPRETED:
    raise ImportError(
        "triton was imported before TRITON_INTERPRET was set to "
        f"{os.environ['TRITON_INTERPRET']}: set it in the environment of the process, or import "
        "embconform.backends.gpu.triton_import before anything that imports triton"
    )

LAUNCHES_EARLY: bool = not INTERPRETED and hasattr(getattr(tl.extra, "cuda", None), "gdc_wait")
"""Whether kernels can be written that start while the one ahead of them still runs."""


def _bfloat16(values: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, Any]:
    rounded = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
    return rounded.view(torch.uint16).numpy()


def _float32(patterns: np.ndarray[Any, np.dtype[np.uint16]]) -> np.ndarray[Any, Any]:
    return (patterns.astype(np.uint32) << 16).view(np.float32)


def _exact_cast(cast: Any) -> Any:
    """Round to nearest and keep subnormal numbers, as devices do."""

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        pair = src.dtype.scalar, dst_type.scalar
        if pair == (tl.float32, tl.bfloat16):
            return TensorHandle(_bfloat16(src.data), tl.bfloat16)
        if pair == (tl.bfloat16, tl.float32):
            return TensorHandle(_float32(src.data), tl.float32)
        return cast(self, src, dst_type)

    return cast_impl


if INTERPRETED:
    InterpreterBuilder.cast_impl = _exact_cast(InterpreterBuilder.cast_impl)
