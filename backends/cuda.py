"""Eager PyTorch on a CUDA device: ATen's kernels."""

from pathlib import Path

import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.devices import cuda_unavailable
from embconform.reference.clause import Profile

unavailable = cuda_unavailable

BACKEND = Backend(
    name="cuda",
    functional=torch.nn.functional.embedding,
    module=torch.nn.Embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("cuda.toml"),
    capabilities=Capabilities(devices=("cuda",)),
    source="from torch.nn import Embedding\nfrom torch.nn.functional import embedding",
    summary="eager PyTorch on a CUDA device: both of its forms",
)
