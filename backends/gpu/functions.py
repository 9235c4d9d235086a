"""The operator's linear maps for torch.func, which differentiates no operator of torch.library.

``torch.func.grad`` and its like ask a :class:`torch.autograd.Function` for a ``setup_context``, and
the one that ``torch.library.register_autograd`` makes has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

Map = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Kind = Literal["lookup", "sum", "spread"]


@dataclass(frozen=True)
class Maps:
    """Maps of a tensor and indices, linear in the tensor.

    Attributes
    ----------
    lookup : callable
        Rows of a table.
    sum : callable
        Sums of rows by index, none at padding_idx: how an upstream gradient goes through `lookup`
        and through `spread`.
    spread : callable
        Rows of a table, 0 at padding_idx, scaled as sums are: how one goes through `sum`.
    """

    lookup: Map
    sum: Map
    spread: Map


def is_transformed() -> bool:
    """Say whether the call is made inside torch.func.grad, torch.vmap or the like."""
    compiling = torch.compiler.is_compiling()
    return not compiling and torch._C._functorch.peek_interpreter_stack() is not None


def linear(
    tensor: torch.Tensor, indices: torch.Tensor, maps: Maps, kind: Kind = "lookup"
) -> torch.Tensor:
    """Apply a map so that transforms of torch.func see what it is.

    Parameters
    ----------
    tensor, indices : Tensor
        What the map takes.
    maps : Maps
    kind : str
        Which map.

    Returns
    -------
    Tensor
    """
    return cast(torch.Tensor, _Linear.apply(tensor, indices, maps, kind))  # type: ignore[no-untyped-call]


def one_by_one(
    run: Callable[..., Any], info: Any, dims: tuple[int | None, ...], *arguments: Any
) -> tuple[torch.Tensor | None, int | None]:
    """Call once for each member of a batch, so that none reads another's rows.

    Parameters
    ----------
    run : callable
    info, dims
        As a vmap rule of torch gets them.
    arguments
        Of `run`, those with a dimension batched.

    Returns
    -------
    output : Tensor or None
        Batched; None where `run` gives nothing.
    dim : int or None
    """
    made = [
        run(
            *(
                argument if dim is None else argument.select(dim, member)
                for argument, dim in zip(arguments, dims, strict=True)
            )
        )
        for member in range(info.batch_size)
    ]
    return (None, None) if made[0] is None else (torch.stack(made), 0)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(tensor: torch.Tensor, indices: torch.Tensor, maps: Maps, kind: Kind) -> Any:
        return getattr(maps, kind)(tensor, indices)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        _, indices, ctx.maps, ctx.kind = inputs
        ctx.save_for_backward(indices)
        ctx.save_for_forward(indices)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        (indices,) = ctx.saved_tensors
        through: Kind = "spread" if ctx.kind == "sum" else "sum"
        return linear(upstream[0], indices, ctx.maps, through), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *_: Any) -> Any:
        (indices,) = ctx.saved_tensors
        return linear(tangent, indices, ctx.maps, ctx.kind)

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> Any:
        return one_by_one(linear, info, dims, *arguments)
