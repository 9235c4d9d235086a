"""Let another framework's lookup be called as torch's is, with its own derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import ml_dtypes
import numpy as np
import torch
from torch.autograd.function import once_differentiable

Pullback = Callable[[Any], Any]
Lookup = Callable[..., tuple[Any, Pullback | None]]


@dataclass(frozen=True)
class Exchange:
    """How arrays cross between torch and a framework; without a copy where both can.

    Attributes
    ----------
    enter : callable
        Makes the framework's array of a tensor.
    leave : callable
        Makes a tensor of the framework's array, once its values are there.
    """

    enter: Callable[[torch.Tensor], Any]
    leave: Callable[[Any], torch.Tensor]


def _to_numpy(tensor: torch.Tensor) -> Any:
    if tensor.dtype is torch.bfloat16:  # NumPy knows it by ml_dtypes only
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _from_numpy(array: Any) -> torch.Tensor:
    array = np.asarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


AS_IT_IS: Final = Exchange(lambda tensor: tensor, lambda tensor: tensor)
"""For what takes and gives tensors."""
NUMPY: Final = Exchange(_to_numpy, _from_numpy)
"""NumPy arrays that share the tensor's memory."""


class _Bridge(torch.autograd.Function):
    """Calls a framework's lookup and, in the backward pass, its pullback."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: torch.Tensor,
        indices: torch.Tensor,
        lookup: Lookup,
        exchange: Exchange,
    ) -> torch.Tensor:
        output, ctx.pull = lookup(exchange.enter(indices.detach()), exchange.enter(weight.detach()))
        ctx.save_for_backward(indices)
        ctx.exchange = exchange
        left = exchange.leave(output)
        if ctx.pull is None:
            ctx.mark_non_differentiable(left)
        return left

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises where the indices, which the pullback shares, were changed
        # NumPy refuses a negated view, and DLPack hands on its memory as it is
        given = ctx.exchange.enter(upstream.detach().resolve_neg())
        gradient = ctx.exchange.leave(ctx.pull(given))
        if gradient.layout is torch.strided and gradient.data_ptr() == upstream.data_ptr():
            gradient = gradient.clone()  # XLA gives its argument back where one row is named once
        return gradient, None, None, None


def bridge(lookup: Lookup, exchange: Exchange) -> Callable[..., torch.Tensor]:
    """Make a function like torch.nn.functional.embedding of a framework's lookup.

    Parameters
    ----------
    lookup : callable
        ``lookup(indices, weight, **options)`` on the framework's arrays gives the output, and a
        function from the output's cotangent to the table's, or None where the framework has no
        derivative.
    exchange : Exchange
        How arrays cross.

    Returns
    -------
    callable
        ``f(input, weight, **options)``; differentiable once.
    """

    def embedding(
        input: torch.Tensor,  # noqa: A002
        weight: torch.Tensor,
        **options: Any,
    ) -> torch.Tensor:
        """Look rows up in another framework."""
        result: torch.Tensor = _Bridge.apply(weight, input, partial(lookup, **options), exchange)  # type: ignore[no-untyped-call]
        return result

    return embedding


def with_autograd(
    run: Callable[[torch.Tensor], torch.Tensor], weight: torch.Tensor
) -> tuple[torch.Tensor, Pullback | None]:
    """Take the derivative of a library that is made of torch's operators.

    Parameters
    ----------
    run : callable
        From the table to the output.
    weight : Tensor

    Returns
    -------
    tuple of Tensor and callable
        As a :data:`Lookup` gives them; no pullback under inference_mode or of a table made there.
    """
    inference = torch.is_inference_mode_enabled() or weight.is_inference()
    if inference or not weight.is_floating_point():
        return run(weight), None
    table = weight.detach().requires_grad_()
    with torch.enable_grad():
        output = run(table)

    def pull(upstream: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(output, table, upstream, retain_graph=True)[0]

    return output.detach(), pull


def missing(*packages: str, extra: str) -> str | None:
    """Say which package is not installed, and how to get it.

    Parameters
    ----------
    packages : str
        Import names.
    extra : str
        The extra of embconform that has them.

    Returns
    -------
    str or None
        One line; None where all are there. Nothing is imported.
    """
    absent = [name for name in packages if find_spec(name) is None]
    if not absent:
        return None
    *first, last = absent
    named = f"{', '.join(first)} and {last} are" if first else f"{last} is"
    return f"{named} not installed; pip install 'embconform[{extra}]'"
