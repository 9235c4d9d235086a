"""torch.func: a functional call with its pullback, and one member of a stack of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import AS_IT_IS, Pullback, bridge
from embconform.reference.clause import Profile


def _call(
    indices: torch.Tensor, weight: torch.Tensor, **options: Any
) -> tuple[torch.Tensor, Pullback]:
    """Put the table into a Module without one, and take the derivative by torch.func.vjp."""
    rows, width = weight.shape
    with torch.device("meta"):
        module = torch.nn.Embedding(rows, width, dtype=weight.dtype, **options)

    def run(table: torch.Tensor) -> Any:
        return torch.func.functional_call(module, {"weight": table}, (indices,))

    results: Any = torch.func.vjp(run, weight)
    output, pull = results
    return output, lambda upstream: pull(upstream)[0]


def member(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """Look rows up in the middle one of three stacked tables, all of them in one vmapped call."""

    def look_up(indices: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(indices, table, **options)

    before, after = weight.detach() + 1, weight.detach() - 1
    tables = torch.stack((before, weight, after))
    others = torch.zeros_like(input)
    return torch.func.vmap(look_up)(torch.stack((others, input, others)), tables)[1]


embedding = bridge(_call, AS_IT_IS)
FUNC = Backend(
    name="func",
    functional=embedding,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(double_backward=False),
    deviations=Path(__file__).with_name("func.toml"),
    source="from embconform.backends.functorch import embedding",
    summary="torch.func.functional_call of torch.nn.Embedding, gradient by torch.func.vjp",
)
VMAP = Backend(
    name="vmap",
    functional=member,
    profiles=(Profile.TORCH,),
    # max_norm would renorm the stack, which is a copy of the table
    capabilities=Capabilities(
        options=frozenset({"padding_idx", "scale_grad_by_freq"}),
        huge_tables=False,  # three of them
    ),
    deviations=Path(__file__).with_name("vmap.toml"),
    source="from embconform.backends.functorch import member as embedding",
    summary="the middle one of three stacked tables under torch.func.vmap",
)
