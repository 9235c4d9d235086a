"""torch.compile with Inductor: no graph break allowed, sizes dynamic."""

import threading
from pathlib import Path
from typing import Any

import torch

from embconform.backends.backend import Backend
from embconform.reference.clause import Profile

RECOMPILATIONS = 4096


def _lookup(indices: torch.Tensor, weight: torch.Tensor, **options: Any) -> torch.Tensor:
    return torch.nn.functional.embedding(indices, weight, **options)


_compiled = torch.compile(_lookup, fullgraph=True, dynamic=True)
_thread = threading.local()


def embedding(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """Call the compiled torch.nn.functional.embedding, which see.

    Dynamo's settings are each thread's own, so a thread makes them at its first call.
    """
    if not getattr(_thread, "prepared", False):
        _prepare()
        _thread.prepared = True
    return _compiled(input, weight, **options)


class Embedding(torch.nn.Embedding):
    """A torch.nn.Embedding whose lookup is compiled.

    Not ``torch.nn.Embedding(...).compile(fullgraph=True)``: docs/findings.md.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """Look rows up.

        Parameters
        ----------
        input : Tensor of int32 or int64
            Indices, of any shape.

        Returns
        -------
        Tensor
            The shape of `input` followed by embedding_dim.
        """
        return embedding(
            input,
            self.weight,
            padding_idx=self.padding_idx,
            max_norm=self.max_norm,
            norm_type=self.norm_type,
            scale_grad_by_freq=self.scale_grad_by_freq,
            sparse=self.sparse,
        )


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
    module=Embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("compile.toml"),
    compiled=True,
    prepare=_prepare,
    threads=1,  # on more, a bad index aborts the process: docs/findings.md
    source="from embconform.backends.compile import Embedding, embedding",
    summary="torch.compile of both (fullgraph, dynamic shapes)",
)
