"""torch.compile with Inductor: no graph break allowed, sizes dynamic."""

from pathlib import Path
from typing import Any

import torch

from embconform.backends.backend import Backend
from embconform.reference.clause import Profile

RECOMPILATIONS = 4096


def _lookup(indices: torch.Tensor, weight: torch.Tensor, **options: Any) -> torch.Tensor:
    return torch.nn.functional.embedding(indices, weight, **options)


embedding = torch.compile(_lookup, fullgraph=True, dynamic=True)


def make_module(num_embeddings: int, embedding_dim: int, **options: Any) -> torch.nn.Embedding:
    """Make a torch.nn.Embedding whose forward pass is compiled.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
    **options
        As :class:`torch.nn.Embedding` takes.

    Returns
    -------
    torch.nn.Embedding
    """
    module = torch.nn.Embedding(num_embeddings, embedding_dim, **options)
    module.compile(fullgraph=True, dynamic=True)
    return module


def _prepare() -> None:
    """Let every structure of a call have its own compilation."""
    torch._dynamo.config.recompile_limit = RECOMPILATIONS
    torch._dynamo.config.accumulated_recompile_limit = RECOMPILATIONS


def unavailable() -> str | None:
    """Say why torch.compile can't run here, or None."""
    from shutil import which

    if not torch.cuda.is_available() and not any(map(which, ("g++", "clang++", "c++"))):
        return "Inductor needs a C++ compiler, and none of g++, clang++ and c++ is on the PATH"
    return None


BACKEND = Backend(
    name="compile",
    functional=embedding,
    module=make_module,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("compile.toml"),
    compiled=True,
    prepare=_prepare,
    threads=1,  # on more, a bad index aborts the process: docs/findings.md
    source="from embconform.backends.compile import embedding, make_module as Embedding",
    summary="torch.compile of both (fullgraph, dynamic shapes)",
)
