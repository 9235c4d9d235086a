"""Eager PyTorch: torch.nn.functional.embedding and torch.nn.Embedding."""

from pathlib import Path

import torch

from embconform.backends.backend import Backend
from embconform.reference.clause import Profile

BACKEND = Backend(
    name="eager",
    functional=torch.nn.functional.embedding,
    module=torch.nn.Embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("eager.toml"),
    source="from torch.nn import Embedding\nfrom torch.nn.functional import embedding",
    summary="torch.nn.functional.embedding and torch.nn.Embedding",
)
