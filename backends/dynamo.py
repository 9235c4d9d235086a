"""What the backends made with torch.compile have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

RECOMPILATIONS = 4096
_thread = threading.local()


def prepare() -> None:
    """Let every structure of a call have its own compilation."""
    torch._dynamo.config.recompile_limit = RECOMPILATIONS
    torch._dynamo.config.accumulated_recompile_limit = RECOMPILATIONS


def compiled(**settings: Any) -> Callable[..., torch.Tensor]:
    """Compile torch.nn.functional.embedding as one graph.

    Dynamo's settings are each thread's own, so a thread makes them at its first call.

    Parameters
    ----------
    settings : object
        For :func:`torch.compile`.

    Returns
    -------
    callable
        ``f(input, weight, **options)``.
    """

    def look_up(indices: torch.Tensor, weight: torch.Tensor, **options: Any) -> torch.Tensor:
        return torch.nn.functional.embedding(indices, weight, **options)

    fast = torch.compile(look_up, fullgraph=True, **settings)

    def embedding(
        input: torch.Tensor,  # noqa: A002
        weight: torch.Tensor,
        **options: Any,
    ) -> torch.Tensor:
        """Call the compiled torch.nn.functional.embedding, which see."""
        if not getattr(_thread, "prepared", False):
            prepare()
            _thread.prepared = True
        return fast(input, weight, **options)

    return embedding


def inductor_unavailable() -> str | None:
    """Say why Inductor can't run here, or None."""
    from shutil import which

    if not torch.cuda.is_available() and not any(map(which, ("g++", "clang++", "c++"))):
        return "Inductor needs a C++ compiler, and none of g++, clang++ and c++ is on the PATH"
    return None
