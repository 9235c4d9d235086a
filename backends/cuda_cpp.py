"""CUDA C++: the kernels in gpu/embedding.cu, compiled at first use."""

from __future__ import annotations

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.devices import cuda_unavailable
from embconform.backends.gpu.kernels import Kernels
from embconform.backends.gpu.nvrtc import missing
from embconform.backends.gpu.operator import Operator
from embconform.backends.through import EmbeddingThrough
from embconform.reference.clause import Profile


def _kernels() -> Kernels:
    from embconform.backends.gpu.cuda_launch import CudaKernels

    return CudaKernels()


OPERATOR = Operator("cuda_cpp", _kernels)
embedding = OPERATOR.embedding


class Embedding(EmbeddingThrough):
    """A torch.nn.Embedding whose lookup is a kernel in CUDA C++."""

    lookup = staticmethod(embedding)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return cuda_unavailable() or missing()


BACKEND = Backend(
    name="cuda-cpp",
    functional=embedding,
    module=Embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(devices=("cuda",)),
    source="from embconform.backends.cuda_cpp import Embedding, embedding",
    summary="kernels in CUDA C++, compiled by NVRTC at first use",
)
