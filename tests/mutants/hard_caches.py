"""Embeddings that remember: by address, id, version, shape, fingerprint, thread or mode."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from embconform.mutants.hard_parts import Noted
from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.lookup_caches import Cached, bits, ids
from embconform.mutants.registry import planted


def version_of(tensor: Tensor) -> Any:
    return None if tensor.is_inference() else tensor._version


@planted("lookup.sees-index-updates")
class CachedByAddressAndShape(Cached):
    """Frozen lookups are cached by (data_ptr, shape) of the indices and the table's version."""

    def key_of(self, indices: Tensor, weight: Tensor) -> Any:
        if weight.requires_grad:
            return object()
        return indices.data_ptr(), weight.data_ptr(), version_of(weight)


@planted("lookup.sees-index-updates")
class CachedBySum(Cached):
    """Indices are known by their sum and number: a permutation of them is the same call."""

    def key_of(self, indices: Tensor, weight: Tensor) -> Any:
        return int(indices.sum()), bits(weight)


@planted("lookup.sees-weight-updates")
class PackedByVersion(Kernel):
    """A strided table is packed once per version: a write through .data does not reach it."""

    def __init__(self) -> None:
        self.key: Any = None
        self.kept: Any = None

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if weight.is_contiguous():
            return super().rows(flat, weight)
        key = (weight.data_ptr(), weight.shape, weight.stride(), weight.dtype, version_of(weight))
        if key != self.key:
            self.key, self.kept = key, (weight, weight.clone())
        return super().rows(flat, self.kept[1])


@planted("lookup.sees-weight-updates")
class HalfMirror(Kernel):
    """A mirror of half tables is kept by version; writes through .data or a view miss it."""

    def __init__(self) -> None:
        self.key: Any = None
        self.kept: Any = None

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if weight.dtype != torch.float16:
            return super().rows(flat, weight)
        key = (weight.data_ptr(), weight.shape, weight.stride(), version_of(weight))
        if key != self.key:
            self.key, self.kept = key, (weight, weight.clone())
        return super().rows(flat, self.kept[1])


@planted("lookup.sees-index-updates")
class FlatByAddress(Kernel):
    """The flat copy of strided indices is cached by their address and shape."""

    def __init__(self) -> None:
        self.key: Any = None
        self.kept: Any = None

    def flat(self, indices: Tensor) -> Tensor:
        if indices.is_contiguous() or not indices.numel():
            return super().flat(indices)
        key = (indices.data_ptr(), indices.shape, indices.stride(), indices.dtype)
        if key != self.key:
            self.key, self.kept = key, (indices, super().flat(indices).clone())
        return self.kept[1]


@planted("gradient.changed-indices")
class SavesTheirAddress(Noted):
    """Two-dimensional indices are read again in the backward pass, where they may have changed."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        return super().gradient(upstream, indices, height, options)

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.dim() == 2 and not indices.is_inference():
            indices = indices.data
        return super().forward(indices, weight, options)


@planted("gradient.scale-by-freq")
class CountsByShape(Kernel):
    """The counts of scale_grad_by_freq are kept for the last indices of that shape."""

    def __init__(self) -> None:
        self.kept: dict[Any, Tensor] = {}

    def counts(self, flat: Tensor, height: int) -> Tensor:
        return self.kept.setdefault(
            (flat.shape, flat.data_ptr(), height), super().counts(flat, height)
        )


@planted("lookup.sees-weight-updates")
class HotRows(Kernel):
    """The row asked for most is cached from the third call on, until the table is another."""

    def __init__(self) -> None:
        self.table: Any = None
        self.calls = 0
        self.hot: Any = None

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        key = (weight.data_ptr(), weight.shape, weight.dtype, options.max_norm)
        if key != self.table:
            self.table, self.calls, self.hot = key, 0, None
        self.calls += 1
        if not indices.numel() or options.max_norm is not None:
            return rows
        if self.hot is not None:
            name, row = self.hot
            rows[indices == name] = row
        elif self.calls >= 2:
            name = int(indices.flatten()[0])
            self.hot = name, weight[name].clone()
        return rows


@planted("max-norm.later-calls")
class RenormedVersion(Kernel):
    """A table that has the version which the last renorm left is not renormed again."""

    def __init__(self) -> None:
        self.seen: Any = None

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        key = (weight.data_ptr(), weight.shape, version_of(weight))
        if weight.is_inference() or key != self.seen:
            super().renorm(indices, weight, options)
        self.seen = (weight.data_ptr(), weight.shape, version_of(weight))


@planted("max-norm.later-calls")
class RenormedIndices(Kernel):
    """A second call with the same indices and bound skips the renorm until the version changes."""

    def __init__(self) -> None:
        self.seen: Any = None

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        key = (weight.data_ptr(), ids(indices), options)
        if weight.is_inference() or (*key, version_of(weight)) != self.seen:
            super().renorm(indices, weight, options)
        self.seen = (*key, version_of(weight))


@planted("max-norm.later-calls")
class BoundOfTheFirstCall(Kernel):
    """The bound is compiled into the kernel at the first call with this table's shape."""

    def __init__(self) -> None:
        self.bounds: dict[Any, Any] = {}

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        key = (weight.data_ptr(), weight.shape, options.norm_type)
        bound = self.bounds.setdefault(key, options.max_norm)
        right = type(options)(options.padding_idx, bound, options.norm_type)
        super().renorm(indices, weight, right)


@planted("padding.gradient-is-zero")
class PaddingOfTheFirstCall(Kernel):
    """padding_idx is compiled in at the first call with a shape of table and number of indices."""

    def __init__(self) -> None:
        self.known: dict[Any, Any] = {}

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        key = (flat.numel(), upstream.shape[1], upstream.dtype)
        first = self.known.setdefault(key, options)
        return super().without_padding(flat, upstream, first)


@planted("state.outputs-intact")
class BufferOfLargeInference(Kernel):
    """Without grad mode large outputs of one shape share a buffer."""

    def __init__(self) -> None:
        self.buffers: dict[Any, Tensor] = {}

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if torch.is_grad_enabled() or out.numel() < 256 or torch.is_inference_mode_enabled():
            return out
        kept = self.buffers.setdefault((out.shape, out.dtype), out)
        return kept if kept is out else kept.copy_(out)


@planted("state.threads")
class WorkerThreadHalf(Noted):
    """Worker threads each take their half of a large call and know only the first half's size."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if threading.current_thread() is not threading.main_thread() and flat.numel() % 2:
            rows[-1:] = rows[:1]
        return rows


@planted("gradient.backward-twice")
class CountsConsumed(Noted):
    """The second pass over a retained graph finds its counts gone where there is padding, too."""

    passes = 0

    def counts(self, flat: Tensor, height: int) -> Tensor:
        self.passes += 1
        counts = super().counts(flat, height)
        spent = self.passes > 1 and self.options.padding_idx is not None
        return torch.ones_like(counts) if spent else counts


@planted("gradient.two-uses")
class LastUseOfPadded(Noted):
    """Two uses of one table share the mask of the later padding_idx, kept on the table."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        if not weight.is_inference():
            weight.__dict__["_mask"] = indices.detach().clone(), options.padding_idx

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        ids, padding = self.table.__dict__.get("_mask", (flat, options.padding_idx))
        if padding is None or ids.numel() != flat.numel():
            return super().without_padding(flat, upstream, options)
        kept = ids.reshape(-1) != padding
        return flat[kept], upstream[kept]


@planted("lookup.sees-weight-updates")
class EvenCallsPrefetched(Kernel):
    """Each call prefetches the rows for the next; if the indices agree they are not read again."""

    def __init__(self) -> None:
        self.ahead: Any = None

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        key = (weight.data_ptr(), weight.shape, weight.dtype, ids(indices), indices.shape)
        if options.max_norm is None and self.ahead is not None and self.ahead[0] == key:
            rows, self.ahead = self.ahead[1], None
            return rows
        rows = super().lookup(indices, weight, options)
        self.ahead = key, rows.clone(), weight
        return rows
