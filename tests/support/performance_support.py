"""What the tests of performance share: small cells, targets, and right and wrong embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import embedding

from embconform.backends.backend import Backend
from embconform.backends.eager import BACKEND as EAGER
from embconform.performance.measure import Cell, Result, Target, measure
from embconform.performance.passes import PASSES
from embconform.performance.workloads import Table, Workload

torch.set_num_threads(1)


def workload(
    rows: int = 500,
    width: int = 16,
    count: int = 64,
    *,
    ids: str = "zipf",
    dtype: str = "float32",
    padding: float = 0.0,
) -> Workload:
    return Workload(Table("small", rows, width, "made up"), "batch", count, ids, dtype, padding)


def cell(name: str = "forward", /, *, cold: bool = False, **sizes: Any) -> Cell:
    return Cell(workload(**sizes), PASSES[name], cold)


def target(function: Any, name: str = "", **broken: frozenset[str]) -> Target:
    if isinstance(function, Backend):
        return Target(name or function.name, function, broken)
    return Target(name or function.__name__, Backend(function.__name__, function), broken)


def against_eager(function: Any, where: Cell, **options: Any) -> tuple[Result, Result]:
    """Measure eager and another one, in one run."""
    options = {"seconds": 0.05, "memory": False} | options
    eager, other = measure(where, [target(EAGER), target(function)], **options)
    return eager, other


def extra_copy(input: Any, weight: Any, **options: Any) -> Any:  # noqa: A002
    return embedding(input, weight, **options).clone()


def whole_table(input: Any, weight: Any, **options: Any) -> Any:  # noqa: A002
    return embedding(input, weight + 0, **options)


class Leaky:
    """Keeps what it returns."""

    __name__ = "leaky"

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] = []

    def __call__(self, input: Any, weight: Any, **options: Any) -> Any:  # noqa: A002
        output = embedding(input, weight, **options)
        self.kept.append(output)
        return output
