"""torch.jit.trace of torch.nn.functional.embedding, while torch ships it."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

from embconform.backends.backend import Backend
from embconform.reference.clause import Profile


@cache
def _traced(example: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> Any:
    """Record one call; a graph is valid for other sizes, as torch says of tracing."""
    dtype, index_dtype, rank = example

    def look_up(indices: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(indices, weight, **dict(options))

    rows = 1 + max(abs(dict(options).get("padding_idx") or 0), 3)
    examples = (torch.zeros((2,) * rank, dtype=index_dtype), torch.ones(rows, 2, dtype=dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated
        return torch.jit.trace(look_up, examples, check_trace=False)  # type: ignore[no-untyped-call]


def embedding(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """Call the traced torch.nn.functional.embedding, which see."""
    example = (weight.dtype, input.dtype, input.dim())
    return _traced(example, tuple(sorted(options.items())))(input, weight)  # type: ignore[no-any-return]


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return None if hasattr(torch.jit, "trace") else "this torch has no torch.jit.trace"


BACKEND = Backend(
    name="trace",
    functional=embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("trace.toml"),
    source="from embconform.backends.trace import embedding",
    summary="torch.jit.trace of torch.nn.functional.embedding, one graph a rank and dtype",
)
