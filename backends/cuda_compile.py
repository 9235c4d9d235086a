"""torch.compile on a CUDA device, where Inductor writes Triton: one graph, sizes dynamic."""

from pathlib import Path

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.compile import Embedding, embedding
from embconform.backends.devices import cuda_unavailable
from embconform.backends.dynamo import prepare
from embconform.backends.foreign import missing
from embconform.reference.clause import Profile


def unavailable() -> str | None:
    """Say why Inductor can't make CUDA kernels here, or None."""
    return cuda_unavailable() or missing("triton", extra="triton")


BACKEND = Backend(
    name="cuda-compile",
    functional=embedding,
    module=Embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("cuda_compile.toml"),
    capabilities=Capabilities(devices=("cuda",)),
    compiled=True,
    prepare=prepare,
    source="from embconform.backends.compile import Embedding, embedding",
    summary="torch.compile of both on a CUDA device (fullgraph, dynamic shapes): Triton",
)
