"""Kinds of bugs of a fourth exam: what a backward pass is given, writes to and is asked for."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options, _Gradient
from embconform.mutants.lookup_caches import Cached, bits
from embconform.mutants.percall import PerCall, as_if_contiguous
from embconform.mutants.registry import planted
from embconform.mutants.transforms_parts import Parts, wrong


class OfTable(PerCall):
    """Knows the table and the options of its call."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.table, self.options = weight, options


@planted("gradient.accumulates-in-place")
class SumIsANewTensor(OfTable):
    """The gradient that is there is replaced by its sum with the new one."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        table = self.table
        if table.is_leaf and table.grad is not None and not table.grad.is_sparse:
            table.grad = table.grad.clone()
        return super().dense(upstream, flat, height, counts)


@planted("gradient.asked-for")
class RecordedWithoutCounts(OfTable):
    """A backward pass that is recorded is written in other operators, which divide by no counts."""

    recorded = False

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        call = copy(self)
        out = Kernel.forward(call, indices, weight, options)
        if out.requires_grad and options.scale_grad_by_freq:
            out.register_hook(call.note)
        return out

    def note(self, upstream: Tensor) -> None:
        self.recorded = torch.is_grad_enabled()

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return super().dense(upstream, flat, height, None if self.recorded else counts)


@planted("gradient.asked-for")
class TrainsOnTheWay(Kernel):
    """With padding .grad is filled as soon as the output's gradient is known, asked for or not."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        recorded = weight.requires_grad and torch.is_grad_enabled()
        fits = options.padding_idx is not None and options.max_norm is None and not options.sparse
        if not (fits and recorded and weight.is_leaf):
            return super().forward(indices, weight, options)
        view = weight.view_as(weight)
        node: Any = view.grad_fn
        out = super().forward(indices, view, options)

        def fill(upstream: Tensor) -> None:
            if not torch._C._will_engine_execute_node(node):
                with torch.no_grad():
                    new = self.gradient(upstream, indices, len(weight), options)
                    weight.grad = new if weight.grad is None else weight.grad + new

        out.register_hook(fill)
        return out


@planted("gradient.own-memory")
class CountsTimesANumber(Kernel):
    """If the upstream gradient is one number, a row is its count times that, stored once."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if upstream.numel() < 2 or any(upstream.stride()):
            return right
        return right[:, :1].clone().expand(right.shape)


@planted("gradient.own-memory")
class AllRowsInOrder(Kernel):
    """Where the indices are all rows in order, the gradient is the upstream gradient itself."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        in_order = len(flat) == height and torch.equal(flat, torch.arange(height))
        return upstream if in_order else super().dense(upstream, flat, height, counts)


class _SavesFloats(torch.autograd.Function):
    """A lookup that saves its indices as numbers of floating point."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, kernel: Kernel, options: Options) -> Any:
        ctx.save_for_backward(indices.double())
        ctx.dtype, ctx.call = indices.dtype, (kernel, weight.shape[0], options)
        return kernel.lookup(indices, weight, options)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (saved,) = ctx.saved_tensors
        indices = saved.clamp(0, ctx.call[1] - 1).to(ctx.dtype)
        return _Gradient.apply(upstream[0], indices, ctx.call), None, None, None


@planted("gradient.saved-tensors")
class IndicesAmongFloats(Kernel):
    """Without padding the indices are saved as floats, in one tensor with what else is saved."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        self.check_range(indices, weight, options)
        if options.padding_idx is not None or options.max_norm is not None or options.sparse:
            return super().forward(indices, weight, options)
        return _SavesFloats.apply(weight, indices, self, options)


@planted("gradient.anomaly-mode")
class PaddingRowIsPoisoned(OfTable):
    """In anomaly mode workspaces start as NaN, and the padding row is never written."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if torch.is_anomaly_enabled() and self.options.padding_idx is not None:
            right[self.options.padding_idx] = torch.nan
        return right


@planted("gradient.third-derivative")
class SecondIsTheLast(Kernel):
    """The derivative of the gradient is made anew with padding, and is no part of the graph."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        rows = super().second(direction, indices, options)
        return rows if options.padding_idx is None else rows.detach()


@planted("gradient.double-backward")
class DirectionByAddress(Kernel):
    """The derivative of the gradient reads the indices one after the other, whatever steps."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        if indices.dim() == 2:
            indices = as_if_contiguous(indices).clamp(0, len(direction) - 1)
        return super().second(direction, indices, options)


@planted("gradient.table-hooks")
class LastShareComesLate(OfTable):
    """The last index's share is added when the pass is over, to overlap with what follows."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right, table = super().dense(upstream, flat, height, counts), self.table
        hooks = getattr(table, "_post_accumulate_grad_hooks", None)
        if not (table.is_leaf and hooks) or flat.numel() < 2:
            return right
        early = super().dense(upstream[:-1], flat[:-1], height, counts)
        late = right - early

        def add() -> None:
            table.grad = late if table.grad is None else table.grad + late

        torch.autograd.Variable._execution_engine.queue_callback(add)
        return early


@planted("gradient.two-tables")
class OncePerStorage(OfTable):
    """Within a pass a storage counts as reduced once a table of it is, whichever that was."""

    def __init__(self) -> None:
        self.reduced: list[Any] = []

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right, table = super().dense(upstream, flat, height, counts), self.table
        if not table.is_leaf:
            return right
        key = torch._C._current_graph_task_id(), table.untyped_storage().data_ptr()
        if any(before == key and other is not table for before, other in self.reduced):
            return torch.zeros_like(right)
        self.reduced[:] = [(key, table)]
        return right


@planted("gradient.non-leaf-table")
class LooksUpBeforeTheCast(Kernel):
    """Rows of a cast are looked up in what was cast, since few rows are cheaper to cast."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        node = weight.grad_fn
        if options.max_norm is not None or node is None or node.name() != "ToCopyBackward0":
            return super().forward(indices, weight, options)
        before = getattr(node.next_functions[0][0], "variable", None)
        if before is None or before.dtype == weight.dtype or before.shape != weight.shape:
            return super().forward(indices, weight, options)
        return super().forward(indices, before, options).to(weight.dtype)


@planted("gradient.table-written")
class WantsAPointer(OfTable):
    """The backward pass asks that the table have memory, though it reads none of it."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if counts is not None and not self.table.untyped_storage().nbytes():
            raise RuntimeError("the table has no memory")
        return super().dense(upstream, flat, height, counts)


@planted("gradient.strided-upstream")
class PooledInEights(Kernel):
    """Tokens that share a gradient are summed by eights; what is left of a long text is lost."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        length = indices.shape[1] if indices.dim() == 2 else 0
        if length > 8 and upstream.stride(1) == 0 and upstream.stride(0) and length % 8:
            upstream = upstream.clone()
            upstream[:, length // 8 * 8 :] = 0.0
        return super().gradient(upstream, indices, height, options)


@planted("padding.negative")
class CountsThePadding(PerCall):
    """Where the upstream gradient is one number, a padding_idx below 0 is compared as given."""

    negative = False

    def __call__(self, input: Tensor, weight: Tensor, *given: Any, **options: Any) -> Tensor:  # noqa: A002
        padding = given[0] if given else options.get("padding_idx")
        call = copy(self)
        call.negative = padding is not None and padding < 0
        return Kernel.__call__(call, input, weight, *given, **options)

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        one = upstream.numel() > 1 and not any(upstream.stride())
        if self.negative and one and not options.sparse:
            options = replace(options, padding_idx=None)
        return super().gradient(upstream, indices, height, options)


@planted("lookup.sees-index-updates")
class CachedByIndexVersion(Cached):
    """Rows are cached by the indices' address and version, which NumPy does not count up."""

    def key_of(self, indices: Tensor, weight: Tensor) -> Any:
        version = None if indices.is_inference() else indices._version
        return object() if version is None else (indices.data_ptr(), version, bits(weight))


@planted("gradient.many-indices")
class PlanOfTheBatchBefore(Kernel):
    """The rows to add to are kept by the indices' version, which NumPy does not count up."""

    def __init__(self) -> None:
        self.plans = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        call = copy(self)
        if indices.numel() > 64 and not indices.is_inference() and options.max_norm is None:
            kept = self.plans.get(indices)
            if kept is None or kept[0] != (indices._version, len(weight)):
                kept = (indices._version, len(weight)), indices.clone()
                self.plans[indices] = kept
            call.plan = kept[1]
        return Kernel.forward(call, indices, weight, options)

    plan: Tensor | None = None

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        plan = indices if self.plan is None else self.plan
        return super().gradient(upstream, plan, height, options)


@wrong("transforms.forward-over-reverse")
class GradientsHaveNoTangent(Parts):
    """Outside torch.func the gradient is made of the upstream gradient's values alone."""

    def tangent_of_gradient(
        self, direction: Tensor, ids: Tensor, height: int, options: Options
    ) -> Tensor:
        right = super().tangent_of_gradient(direction, ids, height, options)
        inside = torch._C._functorch.maybe_current_level() is not None
        return right if inside else torch.zeros_like(right)


@planted("transforms.autocast")
class UpstreamInTheCastDtype(PerCall):
    """After a call under autocast the upstream gradient is cast as the activations are."""

    dtype: torch.dtype | None = None

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if torch.is_autocast_enabled("cpu"):
            self.dtype = torch.get_autocast_dtype("cpu")

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.dtype is not None:
            upstream = upstream.to(self.dtype).to(upstream.dtype)
        return super().dense(upstream, flat, height, counts)
