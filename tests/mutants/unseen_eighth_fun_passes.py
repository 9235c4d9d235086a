"""Kinds of bugs of an eighth exam: passes of lookups that are alive together."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Options
from embconform.mutants.registry import planted
from embconform.mutants.unseen_eighth_fun import BLOCK
from embconform.mutants.unseen_seventh_fun_passes import OwnPass


@planted("gradient.third-derivative")
class ShortIndicesAreConstant(OwnPass):
    """For indices of int32 the gradient is summed without a graph, recorded or not."""

    def passed(self, upstream: Tensor, indices: Tensor, call: Any, kept: dict[str, Any]) -> Tensor:
        if indices.dtype is not torch.int32:
            return super().passed(upstream, indices, call, kept)
        return super().passed(upstream.detach(), indices, call, kept)


class _Large(OwnPass):
    """A right embedding that may keep sums of large tables, thread by thread."""

    def __init__(self) -> None:
        self.mine = threading.local()

    def passed(self, upstream: Tensor, indices: Tensor, call: Any, kept: dict[str, Any]) -> Tensor:
        right = super().passed(upstream, indices, call, kept)
        options: Options = call[2]
        if torch.is_grad_enabled() or options.sparse or right.numel() < BLOCK:
            return right
        return self.keep(right, indices, kept)

    def keep(self, right: Tensor, indices: Tensor, kept: dict[str, Any]) -> Any:
        """Give the gradient, or what a pool makes of it."""
        raise NotImplementedError


@planted("gradient.own-memory")
class BuffersByTurns(_Large):
    """The gradients of a large table lie in two buffers by turns: one is used, one filled."""

    def keep(self, right: Tensor, indices: Tensor, kept: dict[str, Any]) -> Any:
        pairs = self.mine.__dict__.setdefault("pairs", {})
        pair = pairs.setdefault((right.shape, right.dtype), [torch.empty_like(right), right])
        pair.reverse()
        return pair[0].copy_(right)


@planted("gradient.own-memory")
class ClearsWhatWasLookedUpLast(_Large):
    """Sums lie in a table of zeros, of which the rows of the last lookup are cleared after."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        self.mine.rows = indices.reshape(-1).long().clone()
        return super().lookup(indices, weight, options)

    def keep(self, right: Tensor, indices: Tensor, kept: dict[str, Any]) -> Any:
        zeros = self.mine.__dict__.setdefault("zeros", {})
        key = right.shape, right.dtype
        left = zeros.get(key, 0.0)
        total = right + left
        rows = self.mine.rows
        after = total.clone()
        after[rows[rows < len(total)]] = 0.0
        zeros[key] = after
        return total


class _Live:
    """A lookup whose graph somebody holds."""


class _Pool:
    """The live lookups of a table, and the shares of those that were gone through."""

    def __init__(self) -> None:
        self.live: weakref.WeakSet[_Live] = weakref.WeakSet()
        self.total: Tensor | None = None


@planted("gradient.own-memory")
class WaitsForLiveLookups(_Large):
    """The shares of a large table's live lookups are handed over at once, by the last of them."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if out.requires_grad and weight.is_leaf and weight.numel() >= BLOCK:
            pool, live, node = self.pools.setdefault(weight, _Pool()), _Live(), out.grad_fn
            pool.live.add(live)
            node.kept.update(pool=pool, live=live)  # type: ignore[union-attr]
        return out

    def keep(self, right: Tensor, indices: Tensor, kept: dict[str, Any]) -> Any:
        pool: _Pool | None = kept.get("pool")
        if pool is None:
            return right
        pool.live.discard(kept["live"])
        total = right if pool.total is None else pool.total + right
        pool.total = total if pool.live else None
        return None if pool.live else total
