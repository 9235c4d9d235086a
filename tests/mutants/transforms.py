"""Lookups that are right when called plainly and wrong when differentiated or batched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from embconform.mutants.kernel import Options
from embconform.mutants.transforms_parts import Parts, Rows, wrong

# Derivatives


@wrong("transforms.forward-mode")
class JvpOfConstant(Parts):
    """The jvp rule of a kernel that saw indices as its only input: the tangent is 0."""

    def tangent(self, direction: Tensor, ids: Tensor, options: Options) -> Any:
        return torch.zeros_like(super().tangent(direction, ids, options))


@wrong("transforms.forward-mode")
class JvpSumsDuplicates(Parts):
    """The jvp rule was written as the backward pass is: tangents of equal indices are added."""

    def tangent(self, direction: Tensor, ids: Tensor, options: Options) -> Any:
        counts = (ids.unsqueeze(-1) == ids.reshape(-1)).sum(-1)
        return super().tangent(direction, ids, options) * counts.unsqueeze(-1)


@wrong("transforms.forward-mode")
class JvpThroughHalf(Parts):
    """Tangents, being small, are looked up in bfloat16."""

    def tangent(self, direction: Tensor, ids: Tensor, options: Options) -> Any:
        return super().tangent(direction, ids, options).bfloat16().float()


@wrong("transforms.forward-over-reverse")
class GradientJvpForgetsPadding(Parts):
    """The jvp rule of the backward pass adds up padding's tangents, too."""

    def tangent_of_gradient(
        self, direction: Tensor, ids: Tensor, height: int, options: Options
    ) -> Tensor:
        options = replace(options, padding_idx=None)
        return super().tangent_of_gradient(direction, ids, height, options)


@wrong("transforms.forward-over-reverse")
class GradientJvpForgetsCounts(Parts):
    """The jvp rule of the backward pass does not divide, as torch's double backward does not."""

    def tangent_of_gradient(
        self, direction: Tensor, ids: Tensor, height: int, options: Options
    ) -> Tensor:
        options = replace(options, scale_grad_by_freq=False)
        return super().tangent_of_gradient(direction, ids, height, options)


@wrong("transforms.func-grad")
class FuncGradForgetsCounts(Parts):
    """Right under torch.func.grad by weight[ids], for want of a rule; that knows no frequencies."""

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        if torch._C._functorch.is_gradtrackingtensor(weight):
            level = torch._C._functorch.maybe_get_level(weight)
            plain = options.padding_idx is None
            if level == 1 and plain and torch._C._functorch.maybe_current_level() == 1:
                return weight[ids]
        return super().look_up(ids, weight, options)


@wrong("transforms.func-grad")
class FuncGradWritesGrad(Parts):
    """The backward pass accumulates into the table's .grad by itself where torch.func hides it."""

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().look_up(ids, weight, options)
        functorch = torch._C._functorch
        if functorch.is_gradtrackingtensor(weight):
            leaf = functorch.get_unwrapped(weight)
            if not functorch.is_functorch_wrapped_tensor(leaf) and leaf.requires_grad:
                leaf.grad = torch.zeros_like(leaf)
        return out


@wrong("transforms.jacobian")
class FourCotangents(Parts):
    """The batched backward pass has four streams; cotangents beyond them stay 0."""

    def gradient_by_member(self, size: int, dims: Any, arguments: Any, shape: Any) -> Tensor:
        right = super().gradient_by_member(size, dims, arguments, shape)
        return torch.cat([right[:4], torch.zeros_like(right[4:])])


# vmap


@wrong("transforms.vmap-indices")
class MembersOfIndicesFirst(Parts):
    """The vmap rule takes the indices' members to lie on axis 0."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        ids = arguments[1]
        if dims[0] is None and ids.dim() == 2 and len(ids) == size:
            dims = (None, 0)
        return super().rows_by_member(size, dims, arguments, options)


@wrong("transforms.vmap-tables")
class MembersOfTablesFirst(Parts):
    """The vmap rule moves the tables' members by reshaping, which mixes their rows."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        weight, ids = arguments
        if dims[1] is None and dims[0] == 1:
            height, _, width = weight.shape
            weight, dims = weight.reshape(size, height, width), (0, None)
        return super().rows_by_member(size, dims, (weight, ids), options)


@wrong("transforms.vmap-both")
class AxesSwapped(Parts):
    """With members in both, on different axes, the vmap rule uses the tables' axis for both."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        weight, ids = arguments
        if None not in dims and dims[0] != dims[1] and ids.dim() == 2 and len(ids) == size:
            dims = (dims[0], 0)
        return super().rows_by_member(size, dims, (weight, ids), options)


@wrong("transforms.vmap-both")
class LastTableForLoneIndices(Parts):
    """Members of one index each are looked up together, in the table of the last."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        weight, ids = arguments
        plain = not options.scale_grad_by_freq and options.max_norm is None
        if dims == (0, 0) and ids.dim() == 1 and plain:
            own = super().rows_by_member(size, dims, arguments, options)
            last = functional.embedding(ids, weight[-1])
            return own + (last - own).detach()
        return super().rows_by_member(size, dims, (weight, ids), options)


def _end_to_end(dims: Any, arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Lay tables end to end; give the table, indices with members on axis 0, and offsets."""
    weight, ids = arguments
    weight, ids = weight.movedim(dims[0], 0), ids.movedim(dims[1], 0)
    offsets = torch.arange(len(weight)) * weight.shape[1]
    return weight.flatten(0, 1), ids, offsets.reshape(-1, *[1] * (ids.dim() - 1))


@wrong("transforms.vmap-range")
class OneLongTable(Parts):
    """As torch: the tables lie end to end, and only the shifted indices are checked."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        if None in dims or options.padding_idx is not None or options.scale_grad_by_freq:
            return super().rows_by_member(size, dims, arguments, options)
        table, ids, offsets = _end_to_end(dims, arguments)
        return Rows.apply(table, ids + offsets, self, options)


@wrong("transforms.vmap-range-alone")
class WrapsUnderVmap(Parts):
    """Checks the range by the data, which vmap has no way to do, and wraps there instead."""

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        batched = torch._C._functorch.is_batchedtensor
        if batched(ids) and not batched(weight) and not options.max_norm:
            ids = ids.remainder(len(weight))
        return super().look_up(ids, weight, options)


class _Divided(torch.autograd.Function):
    """What it is given; its gradient is divided."""

    @staticmethod
    def forward(rows: Tensor, counts: Tensor) -> Tensor:
        return rows.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (counts,) = ctx.saved_tensors
        return upstream[0] / counts, None


class _FirstTable(torch.autograd.Function):
    @staticmethod
    def forward(table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
        return functional.embedding(ids + offsets, table)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        table, ids, _ = inputs
        ctx.height = len(table)
        ctx.save_for_backward(ids)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (ids,) = ctx.saved_tensors
        backward = torch.ops.aten.embedding_dense_backward
        return backward(upstream[0].contiguous(), ids, ctx.height, -1, False), None, None


@wrong("transforms.vmap-gradient")
class GradientToTheFirst(Parts):
    """The tables lie end to end, and the backward pass uses the indices before the shift."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        right = super().rows_by_member(size, dims, arguments, options)  # checks the range
        if None in dims or options != Options():
            return right
        return _FirstTable.apply(*_end_to_end(dims, arguments))


@wrong("transforms.vmap-gradient")
class SharedTableOnce(Parts):
    """Where members share a table, equal rows of several members pass their gradient once."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        right = super().rows_by_member(size, dims, arguments, options)
        if dims[0] is None and options == Options() and size > 1:
            return torch.cat([right[:1], right[1:].detach()])
        return right


@wrong("transforms.vmap-padding")
class FirstPaddingOnly(Parts):
    """As torch: the tables lie end to end, and padding is a row of the first."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        if None in dims or options.padding_idx is None or options.scale_grad_by_freq:
            return super().rows_by_member(size, dims, arguments, options)
        super().rows_by_member(size, dims, arguments, options)  # checks the range
        table, ids, offsets = _end_to_end(dims, arguments)
        return Rows.apply(table, ids + offsets, self, options)


@wrong("transforms.vmap-padding-alone")
class PaddingOfOneTallTable(Parts):
    """Tables that share their indices are one tall table, and padding is a row of the first."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        right = super().rows_by_member(size, dims, arguments, options)  # checks the range
        if dims[1] is not None or options.padding_idx is None or options.scale_grad_by_freq:
            return right
        weight, ids = arguments
        table, ids, offsets = _end_to_end((dims[0], 0), (weight, ids.expand(size, *ids.shape)))
        return Rows.apply(table, ids + offsets, self, options)


@wrong("transforms.vmap-scaled-tables")
class CountsMembersOfTables(Parts):
    """The indices of all members are counted together, though each has a table of its own."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        if None in dims or not options.scale_grad_by_freq:
            return super().rows_by_member(size, dims, arguments, options)
        plain = replace(options, scale_grad_by_freq=False)
        out = super().rows_by_member(size, dims, arguments, plain)
        ids = arguments[1].movedim(dims[1], 0)
        counts = torch.bincount(ids.reshape(-1), minlength=int(ids.max()) + 1)
        return _Divided.apply(out, counts[ids].unsqueeze(-1))


@wrong("transforms.vmap-scaled")
class CountsAllMembers(Parts):
    """As torch: members that share a table are one call, and their indices counted together."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        if dims[0] is not None or not options.scale_grad_by_freq:
            return super().rows_by_member(size, dims, arguments, options)
        weight, ids = arguments
        return Rows.apply(weight, ids.movedim(dims[1], 0), self, options)


@wrong("transforms.vmap-scaled")
class CountsNothingUnderVmap(Parts):
    """The vmap rule of a shared table drops the option that it has no rule for."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        if dims[0] is None:
            options = replace(options, scale_grad_by_freq=False)
        return super().rows_by_member(size, dims, arguments, options)


@wrong("transforms.vmap-max-norm")
class NoRenormUnderVmap(Parts):
    """In-place renorm has no vmap rule, so it is left out there."""

    def renorm(self, ids: Tensor, weight: Tensor, options: Options) -> None:
        if not torch._C._functorch.is_batchedtensor(weight):
            super().renorm(ids, weight, options)


@wrong("transforms.vmap-max-norm")
class RenormsEveryRowUnderVmap(Parts):
    """Under vmap the renorm is a plain product over the whole table, named rows or not."""

    def renorm(self, ids: Tensor, weight: Tensor, options: Options) -> None:
        if torch._C._functorch.is_batchedtensor(weight):
            ids = torch.arange(len(weight))
        super().renorm(ids, weight, options)


@wrong("transforms.per-sample-gradient")
class FirstSamplesIndices(Parts):
    """The vmap rule of the backward pass takes indices for unbatched: the first sample's."""

    def gradient_by_member(self, size: int, dims: Any, arguments: Any, shape: Any) -> Tensor:
        upstream, ids = arguments
        if dims[1] is not None:
            ids, dims = ids.select(dims[1], 0), (dims[0], None)
        return super().gradient_by_member(size, dims, (upstream, ids), shape)
