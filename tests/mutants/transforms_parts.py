"""A right embedding under every transform of torch.func, in parts as Kernel is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from embconform.mutants.kernel import Options
from embconform.mutants.registry import planted


class Parts:
    """torch's embedding as an autograd.Function with every rule of torch.func; right as it stands.

    Dense gradients only.
    """

    def __call__(  # noqa: PLR0917
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
    ) -> Tensor:
        if padding_idx is not None:
            if padding_idx and not -len(weight) <= padding_idx < len(weight):
                raise ValueError(f"padding_idx {padding_idx} is outside {len(weight)} rows")
            padding_idx %= max(len(weight), 1)
        options = Options(padding_idx, max_norm, norm_type, scale_grad_by_freq)
        return self.look_up(input, weight, options)

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        if options.max_norm is not None:
            with torch.no_grad():
                self.renorm(ids, weight.detach(), options)
        return Rows.apply(weight, ids, self, options)

    def renorm(self, ids: Tensor, weight: Tensor, options: Options) -> None:
        assert options.max_norm is not None
        torch.embedding_renorm_(weight, ids.reshape(-1), options.max_norm, options.norm_type)

    # Plain tensors

    def rows(self, weight: Tensor, ids: Tensor) -> Tensor:
        return functional.embedding(ids, weight)

    def gradient(self, upstream: Tensor, ids: Tensor, height: int, options: Options) -> Tensor:
        padding = -1 if options.padding_idx is None else options.padding_idx
        scaled = options.scale_grad_by_freq
        backward = torch.ops.aten.embedding_dense_backward
        return backward(upstream.contiguous(), ids, height, padding, scaled)

    def second(self, direction: Tensor, ids: Tensor, options: Options) -> Tensor:
        found = functional.embedding(ids, direction)
        if options.scale_grad_by_freq:
            counts = torch.bincount(ids.reshape(-1), minlength=len(direction))
            found = found / counts[ids].unsqueeze(-1)
        if options.padding_idx is not None:
            found = found.masked_fill((ids == options.padding_idx).unsqueeze(-1), 0.0)
        return found

    # Rules

    def tangent(self, direction: Tensor, ids: Tensor, options: Options) -> Any:
        return Rows.apply(direction, ids, self, options)

    def tangent_of_gradient(
        self, direction: Tensor, ids: Tensor, height: int, options: Options
    ) -> Tensor:
        return Gradient.apply(direction, ids, self, (height, options))

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        """Look each member up by itself."""
        return torch.stack(
            [Rows.apply(*_member(k, dims, arguments), self, options) for k in range(size)]
        )

    def gradient_by_member(self, size: int, dims: Any, arguments: Any, shape: Any) -> Tensor:
        """Sum each member's gradient by itself."""
        return torch.stack(
            [Gradient.apply(*_member(k, dims, arguments), self, shape) for k in range(size)]
        )


def _member(number: int, dims: Any, arguments: Any) -> list[Tensor]:
    return [
        argument if dim is None else argument.select(dim, number)
        for dim, argument in zip(dims, arguments, strict=True)
    ]


class Rows(torch.autograd.Function):
    @staticmethod
    def forward(weight: Tensor, ids: Tensor, parts: Parts, options: Options) -> Tensor:
        return parts.rows(weight, ids)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        weight, ids, ctx.parts, ctx.options = inputs
        ctx.height = len(weight)
        ctx.save_for_backward(ids)
        ctx.save_for_forward(ids)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (ids,) = ctx.saved_tensors
        shape = ctx.height, ctx.options
        return Gradient.apply(upstream[0], ids, ctx.parts, shape), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (ids,) = ctx.saved_tensors
        return ctx.parts.tangent(tangents[0], ids, ctx.options)

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        weight, ids, parts, options = inputs
        return parts.rows_by_member(info.batch_size, dims[:2], (weight, ids), options), 0


class Gradient(torch.autograd.Function):
    @staticmethod
    def forward(upstream: Tensor, ids: Tensor, parts: Parts, shape: tuple[int, Options]) -> Tensor:
        return parts.gradient(upstream, ids, *shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ids, ctx.parts, ctx.shape = inputs
        ctx.save_for_backward(ids)
        ctx.save_for_forward(ids)

    @staticmethod
    def backward(ctx: Any, *direction: Any) -> Any:
        (ids,) = ctx.saved_tensors
        return ctx.parts.second(direction[0], ids, ctx.shape[1]), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (ids,) = ctx.saved_tensors
        return ctx.parts.tangent_of_gradient(tangents[0], ids, *ctx.shape)

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        upstream, ids, parts, shape = inputs
        return parts.gradient_by_member(info.batch_size, dims[:2], (upstream, ids), shape), 0


def wrong(clause: str) -> Any:
    """Plant an instance of the decorated class, under the class's name."""

    def record(made: type[Parts]) -> Parts:
        parts = made()
        parts.__name__ = made.__name__  # type: ignore[attr-defined]
        planted(clause)(parts)
        return parts

    return record
