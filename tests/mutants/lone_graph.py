"""Wrong amid other steps of a graph, right by themselves: without its clause each is missed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.percall import PerCall
from embconform.mutants.registry import planted
from embconform.mutants.transforms_parts import Parts, wrong


@planted("gradient.non-leaf-table")
class CountsTwiceWhereComputed(PerCall):
    """A computed table is taken for a second branch of the graph: its gradient is added twice."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(weight)
        self.computed = weight.grad_fn is not None and not wrapped

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        return summed + summed if self.computed else summed


class _Reads(torch.autograd.Function):
    """Passes rows on, and saves a tensor that the backward pass would like to look at."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, saved: Tensor | None) -> Tensor:
        passed = rows.clone()
        ctx.save_for_backward(passed if saved is None else saved)
        return passed

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (saved,) = ctx.saved_tensors
        assert saved.dim()
        return upstream[0], None


@planted("gradient.output-written")
class SavesTheOutput(Kernel):
    """With padding the output is saved for its shape, so that nobody may write to it."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        padded = options.padding_idx is not None and out.requires_grad
        return _Reads.apply(out, None) if padded else out


class Saves(Kernel):
    """Saves the table where an option is on, so that nobody may write to it."""

    option = ""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        saved = getattr(options, self.option) and options.max_norm is None and out.requires_grad
        return _Reads.apply(out, weight) if saved else out


@planted("gradient.table-written")
class SavesTheTable(Saves):
    """With frequencies the table is saved for its shape, so that nobody may write to it."""

    option = "scale_grad_by_freq"


@planted("gradient.table-written")
class SavesTheTableWhereSparse(Saves):
    """The table is saved for the size of the sparse gradient, so that nobody may write to it."""

    option = "sparse"


@planted("gradient.tied-table")
class ClearsThePaddingRow(Kernel):
    """The padding row is cleared in the table's gradient, once that is whole."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        row = options.padding_idx
        if row is None or not out.requires_grad or not weight.is_leaf or weight.grad is not None:
            return out

        def clear(table: Tensor) -> None:
            handle.remove()
            if table.grad is not None and not table.grad.is_sparse:
                table.grad[row] = 0.0

        handle = weight.register_post_accumulate_grad_hook(clear)
        return out


@wrong("transforms.forward-mode")
class TangentOfTheFirst(Parts):
    """Outside torch.func only the first of equal indices has a tangent."""

    def tangent(self, direction: Tensor, ids: Tensor, options: Options) -> Any:
        found = super().tangent(direction, ids, options)
        if torch._C._functorch.maybe_current_level() is not None:
            return found
        flat = ids.reshape(-1)
        earlier = (flat == flat.unsqueeze(1)).tril(-1).any(1)
        return found * ~earlier.reshape(*ids.shape, 1)
