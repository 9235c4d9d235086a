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
    maps: Maps, tensor: torch.Tensor, indices: torch.Tensor, kind: Kind = "lookup"
) -> torch.Tensor:
    """Apply a map so that transforms of torch.func see what it is.

    Parameters
    ----------
    maps : Maps
    tensor, indices : Tensor
        What the map takes.
    kind : str
        Which map.

    Returns
    -------
    Tensor
    """
    return cast(torch.Tensor, _Linear.apply(tensor, indices, maps, kind))  # type: ignore[no-untyped-call]


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
        return linear(ctx.maps, upstream[0], indices, through), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *_: Any) -> Any:
        (indices,) = ctx.saved_tensors
        return linear(ctx.maps, tangent, indices, ctx.kind)

    @staticmethod
    def vmap(  # noqa: PLR0917, torch's
        info: Any,
        dims: tuple[int | None, ...],
        tensor: torch.Tensor,
        indices: torch.Tensor,
        maps: Maps,
        kind: Kind,
    ) -> tuple[torch.Tensor, int]:
        """Take the members of a batch one by one, so that none reads another's rows."""
        made = [
            linear(maps, *_member((tensor, indices), dims, member), kind)
            for member in range(info.batch_size)
        ]
        return torch.stack(made), 0


def _member(
    tensors: tuple[torch.Tensor, torch.Tensor], dims: tuple[int | None, ...], member: int
) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (
        each if dim is None else each.select(dim, member)
        for each, dim in zip(tensors, dims, strict=False)
    )
    return first, second
