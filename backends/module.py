"""torch.nn.Embedding alone: every call goes through a Module."""

from pathlib import Path

import torch

from embconform.backends.backend import Backend
from embconform.reference.clause import Profile

BACKEND = Backend(
    name="module",
    module=torch.nn.Embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("module.toml"),
    source="from torch.nn import Embedding",
    summary="torch.nn.Embedding alone",
)
