"""Triton: kernels of this project; where no CUDA device is, Triton's interpreter runs them."""

from __future__ import annotations

import os

import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import missing
from embconform.backends.gpu.kernels import Kernels
from embconform.backends.gpu.operator import Operator
from embconform.backends.through import EmbeddingThrough
from embconform.reference.clause import Profile

ON_DEVICE = torch.cuda.is_available()
if not ON_DEVICE:  # before torch imports triton, as it does for an operator
    os.environ.setdefault("TRITON_INTERPRET", "1")


def _kernels() -> Kernels:
    from embconform.backends.gpu.triton_launch import TritonKernels

    return TritonKernels()


OPERATOR = Operator("triton", _kernels)
embedding = OPERATOR.embedding


class Embedding(EmbeddingThrough):
    """A torch.nn.Embedding whose lookup is a kernel in Triton."""

    lookup = staticmethod(embedding)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return missing("triton", extra="triton")


BACKEND = Backend(
    name="triton",
    functional=embedding,
    module=Embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(devices=("cuda",) if ON_DEVICE else ("cpu",), huge_tables=ON_DEVICE),
    interpreter="" if ON_DEVICE else "Triton's interpreter on the CPU",
    source="from embconform.backends.triton import Embedding, embedding",
    summary="kernels in Triton; interpreted where no CUDA device is",
)
