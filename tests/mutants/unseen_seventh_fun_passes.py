"""Kinds of bugs of a seventh exam: backward passes that are recorded, repeated or beside others."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options, _Gradient
from embconform.mutants.registry import planted
from embconform.mutants.unseen_fourth_grads import OfTable

BLOCK = 1024


class _Pass(torch.autograd.Function):
    """A lookup whose kernel has the graph's node at hand in the backward pass."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, kernel: Any, options: Options) -> Any:
        ctx.save_for_backward(indices)
        ctx.call = kernel, len(weight), options
        ctx.kept = {} if indices.is_inference() else {"version": indices._version}
        return kernel.lookup(indices, weight, options)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (indices,) = ctx.saved_tensors
        kernel = ctx.call[0]
        return kernel.passed(upstream[0], indices, ctx.call, ctx.kept), None, None, None


class OwnPass(Kernel):
    """A right embedding that may keep something from one backward pass to the next."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        self.check_range(indices, weight, options)
        if options.max_norm is not None:
            with torch.no_grad():
                self.renorm(indices, weight, options)
        return _Pass.apply(weight, indices, self, options)

    def passed(self, upstream: Tensor, indices: Tensor, call: Any, kept: dict[str, Any]) -> Tensor:
        """Give the gradient; `call` is the kernel, the height and the options."""
        return _Gradient.apply(upstream, indices, call)


@planted("gradient.asked-for")
class RecordsInSingle(OwnPass):
    """A backward pass that is recorded puts its sums in memory of float32."""

    def passed(self, upstream: Tensor, indices: Tensor, call: Any, kept: dict[str, Any]) -> Tensor:
        right = super().passed(upstream, indices, call, kept)
        if not torch.is_grad_enabled() or call[2].sparse:
            return right
        return right + (right.float().to(right.dtype) - right).detach()


@planted("gradient.asked-for")
class LongPassesAreConstant(OwnPass):
    """The gradient of many indices is summed without a graph, recorded or not."""

    def passed(self, upstream: Tensor, indices: Tensor, call: Any, kept: dict[str, Any]) -> Tensor:
        if indices.numel() < 128:
            return super().passed(upstream, indices, call, kept)
        with torch.no_grad():
            return super().passed(upstream, indices, call, kept)


@planted("gradient.asked-for")
class PassesByAddress(OwnPass):
    """A second pass gives what the first gave if its upstream gradient lies where that lay."""

    def passed(self, upstream: Tensor, indices: Tensor, call: Any, kept: dict[str, Any]) -> Tensor:
        if torch.is_grad_enabled() or not call[2].scale_grad_by_freq or call[2].sparse:
            return super().passed(upstream, indices, call, kept)
        place = upstream.data_ptr(), upstream.shape, upstream.stride(), upstream.is_neg()
        if kept.get("place") != place:
            result = super().passed(upstream, indices, call, kept)
            kept.update(place=place, upstream=upstream, result=result)
        return kept["result"].clone()


@planted("gradient.asked-for")
class SumsStayInTheNode(OwnPass):
    """Many indices are summed in memory of the graph's node, zeroed when that is made."""

    def passed(self, upstream: Tensor, indices: Tensor, call: Any, kept: dict[str, Any]) -> Tensor:
        result = super().passed(upstream, indices, call, kept)
        if torch.is_grad_enabled() or indices.numel() <= BLOCK or call[2].sparse:
            return result
        kept["sum"] = result + kept["sum"] if "sum" in kept else result
        return kept["sum"].clone()


@planted("gradient.saved-tensors")
class VersionOfTheCopy(OwnPass):
    """Counts are wrong if the indices were written to, so their version is compared."""

    def passed(self, upstream: Tensor, indices: Tensor, call: Any, kept: dict[str, Any]) -> Tensor:
        version = kept.get("version")
        if call[2].scale_grad_by_freq and version is not None and indices._version != version:
            raise RuntimeError("the indices were written to since the forward pass")
        return super().passed(upstream, indices, call, kept)


def _users(tensor: Tensor) -> int:
    return torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


@planted("gradient.own-memory")
class ZeroesWhatItTouched(Kernel):
    """The gradient's memory serves again when nobody holds it; rows that were added to are 0."""

    def __init__(self) -> None:
        self.mine = threading.local()

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if upstream.dtype is not torch.float32 or not right.numel() or right.is_inference():
            return right
        kept: Any = self.mine.__dict__.get("kept")
        if kept is None or kept[0].shape != right.shape or _users(kept[0]) > kept[2]:
            memory = torch.zeros_like(right)
            kept = memory, flat, _users(memory)
        memory, touched, users = kept
        memory[touched] = 0.0
        rows = flat.unique()
        memory[rows] = right[rows]
        self.mine.kept = memory, rows, users
        return memory.detach()


@planted("sparse.asked-for")
class DenseBesideDense(OfTable):
    """Entries for a table that has a dense .grad are made dense, as they will be there."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        entries, table = super().sparse(upstream, flat, height, counts), self.table
        beside = table.is_leaf and table.grad is not None and not table.grad.is_sparse
        return entries.to_dense() if beside else entries
