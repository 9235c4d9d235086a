"""Imports Triton, with its interpreter where torch finds no CUDA device.

Triton reads TRITON_INTERPRET when it is first imported: its own library is compiled or interpreted
from then on. So this is the one place where the choice is made, and everything else takes `triton`
and `tl` from here. A value that is already in the environment stands: ``TRITON_INTERPRET=0``
without a device gives kernels that can be compiled for a named target, and not launched.
"""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

__all__ = ["INTERPRETED", "tl", "triton"]

INTERPRETED: bool = isinstance(tl.cdiv, InterpretedFunction)
"""Whether kernels run on the CPU, one program after the other, as NumPy operations."""

if triton.knobs.runtime.interpret != INTERPRETED:
    raise ImportError(
        "triton was imported before TRITON_INTERPRET was set to "
        f"{os.environ['TRITON_INTERPRET']}: set it in the environment of the process, or import "
        "embconform.backends.gpu.triton_import before anything that imports triton"
    )
