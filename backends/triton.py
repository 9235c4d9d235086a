"""Triton: kernels of this project; where no CUDA device is, Triton's interpreter runs them."""

from __future__ import annotations

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.gpu import triton_import  # first: torch imports triton for an operator
from embconform.backends.gpu.kernels import Kernels
from embconform.backends.gpu.operator import Operator
from embconform.backends.through import EmbeddingThrough
from embconform.reference.clause import Profile


def _kernels() -> Kernels:
    from embconform.backends.gpu.triton_launch import TritonKernels

    return TritonKernels()


OPERATOR = Operator("triton", _kernels)
embedding = OPERATOR.embedding


class Embedding(EmbeddingThrough):
    """A torch.nn.Embedding whose lookup is a kernel in Triton."""

    lookup = staticmethod(embedding)


BACKEND = Backend(
    name="triton",
    functional=embedding,
    module=Embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(
        devices=("cpu",) if triton_import.INTERPRETED else ("cuda",),
        huge_tables=not triton_import.INTERPRETED,
    ),
    interpreter="Triton's interpreter on the CPU" if triton_import.INTERPRETED else "",
    source="from embconform.backends.triton import Embedding, embedding",
    summary="kernels in Triton; interpreted where no CUDA device is",
)
