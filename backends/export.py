"""torch.export of torch.nn.functional.embedding, and the exported program run."""

import threading
from functools import cache
from pathlib import Path
from typing import Any

import torch

from embconform.backends.backend import Backend
from embconform.backends.hooks import without_the_callers_hooks
from embconform.reference.clause import Profile

_one_at_a_time = threading.Lock()  # torch.export is not made for several threads


class _Lookup(torch.nn.Module):
    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options

    def forward(self, indices: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(indices, weight, **self.options)


@cache
def _exported(example: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> Any:
    """Export once for all sizes above 1; torch.export makes constants of 0 and 1."""
    dtype, index_dtype, shapes, trained = example
    shape, table = ([size if size < 2 else 5 + k for k, size in enumerate(s)] for s in shapes)
    if table[0] > 1:
        table[0] += abs(dict(options).get("padding_idx") or 0)
    arguments = (
        torch.zeros(shape, dtype=index_dtype),
        torch.ones(table, dtype=dtype, requires_grad=trained),
    )
    dynamic = tuple(
        {k: torch.export.Dim.DYNAMIC for k, size in enumerate(s) if size > 1}
        for s in (shape, table)
    )
    # what a checkpoint counts around the call that exports would be missed when it is run again
    with _one_at_a_time, without_the_callers_hooks():
        program = torch.export.export(_Lookup(dict(options)), arguments, dynamic_shapes=dynamic)
        return program.module()


def embedding(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """Run the exported torch.nn.functional.embedding, which see."""
    shapes = tuple(tuple(min(size, 2) for size in each.shape) for each in (input, weight))
    example = (weight.dtype, input.dtype, shapes, weight.requires_grad)
    return _exported(example, tuple(sorted(options.items())))(input, weight)  # type: ignore[no-any-return]


BACKEND = Backend(
    name="export",
    functional=embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("export.toml"),
    compiled=True,
    source="from embconform.backends.export import embedding",
    summary="torch.export of torch.nn.functional.embedding with dynamic shapes",
)
