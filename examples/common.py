"""What the examples share: a table looked up by any backend, a loss curve, nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click
import torch
from torch import Tensor

from embconform.backends.backend import TargetError
from embconform.backends.targets import resolve

CURVE = 12
"""Lines of a loss curve."""
BAR = 40
"""Characters of its longest bar."""


@dataclass(frozen=True)
class Table:
    """A trainable table of vectors, and the embedding that looks them up."""

    weight: Tensor
    look_up: Callable[[Tensor], Tensor]

    def __call__(self, ids: Tensor) -> Tensor:
        """Look vectors up."""
        return self.look_up(ids)


def make_table(
    target: str, rows: int, width: int, *, padding_idx: int | None = None, scale: float = 1
) -> Table:
    """Make a table whose lookups go through a target.

    Parameters
    ----------
    target : str
        Anything that ``embconform validate`` takes.
    rows, width : int
    padding_idx : int, optional
        Passed on where the target has this option.
    scale : float

    Returns
    -------
    Table
        Drawn from N(0, 1/width), times `scale`.
    """
    try:
        backend = resolve(target)
    except TargetError as error:
        raise click.UsageError(str(error)) from error
    options: dict[str, Any] = {}
    if padding_idx is not None and "padding_idx" in backend.able:
        options["padding_idx"] = padding_idx
    weight = torch.nn.Parameter(torch.randn(rows, width) * scale * width**-0.5)
    functional = backend.functional
    if functional is not None:
        return Table(weight, lambda ids: functional(ids, weight, **options))
    assert backend.module is not None
    module = backend.module(rows, width, **options)
    module.weight = weight
    return Table(weight, module)


def train(
    tables: Sequence[Table], losses: Iterator[Tensor], steps: int, rate: float
) -> list[float]:
    """Descend by Adagrad, one step for each loss that is drawn.

    Parameters
    ----------
    tables : sequence of Table
    losses : iterator of Tensor
        Each computed from the tables as they stand when it is drawn.
    steps : int
    rate : float

    Returns
    -------
    list of float
        The losses.
    """
    torch.set_num_threads(1)  # the tables are too small to share
    optimiser = torch.optim.Adagrad([table.weight for table in tables], lr=rate)
    seen = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = next(losses)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        seen.append(loss.item())
    return seen


def show_curve(losses: Sequence[float]) -> None:
    """Print a loss curve as bars, each the mean over a stretch of steps.

    Parameters
    ----------
    losses : sequence of float
    """
    length = max(len(losses) // CURVE, 1)
    means = [
        (start + 1, sum(losses[start : start + length]) / len(losses[start : start + length]))
        for start in range(0, len(losses), length)
    ]
    highest = max(mean for _, mean in means)
    click.echo("\nloss")
    for start, mean in means:
        click.echo(f"  from step {start:>5}  {mean:8.4f}  {'█' * round(BAR * mean / highest)}")


def neighbours(weight: Tensor, row: int, count: int) -> list[tuple[int, float]]:
    """Find the rows whose vectors point the same way.

    Parameters
    ----------
    weight : Tensor of shape (V, D)
    row : int
    count : int

    Returns
    -------
    list of (row, cosine similarity)
        Nearest first, `row` itself left out.
    """
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(weight, dim=1)
        similarity = vectors @ vectors[row]
        similarity[row] = -2.0
        values, rows = similarity.topk(min(count, len(weight) - 1))
    return list(zip(rows.tolist(), values.tolist(), strict=True))
