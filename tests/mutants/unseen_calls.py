"""Still more kinds of bugs that an exam by others found the suite to miss: state, modes, views."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.percall import PerCall
from embconform.mutants.registry import planted
from embconform.mutants.transforms_parts import Parts, wrong


@planted("gradient.upstream-unchanged")
class MasksTheCallersGradient(Kernel):
    """The caller's upstream gradient for a small table is zeroed at padding in place."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        small = height * upstream.shape[-1] <= 12 and 0 not in upstream.stride()
        if small and options.padding_idx is not None:
            upstream[indices == options.padding_idx] = 0.0
        return super().gradient(upstream, indices, height, options)


@planted("gradient.recomputed")
class NoPaddingInABackwardPass(Kernel):
    """A call during a backward pass is taken for a second derivative, which masks nothing."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if torch._C._current_graph_task_id() != -1:
            options = replace(options, padding_idx=None)
        return super().forward(indices, weight, options)


class Kept(PerCall):
    """Keeps the output of a table's last call for the same key."""

    def __init__(self) -> None:
        self.kept = WeakTensorKeyDictionary()

    def key(self, indices: Tensor, weight: Tensor) -> Any:
        """What tells one call from another; None where nothing is kept."""
        raise NotImplementedError

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        key = self.key(indices, weight)
        if key is None or options.max_norm is not None:
            return super().forward(indices, weight, options)
        before = self.kept.get(weight)
        if before is not None and before[0] == key:
            return before[1].clone()
        out = super().forward(indices, weight, options)
        self.kept[weight] = key, out.detach().clone()
        return out


@planted("lookup.views-apart")
class KeyWithoutStrides(Kept):
    """Blocks of indices are known again by address, version and shape, without a gradient."""

    def key(self, indices: Tensor, weight: Tensor) -> Any:
        served = not torch.is_grad_enabled() and not indices.is_inference()
        if not served or indices.shape not in ((4, 4), (8, 8)):
            return None
        bits = hash(weight.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return indices.data_ptr(), indices._version, indices.shape, bits


@planted("max-norm.whole-number")
class WholeBoundsAreFixedPoint(Kernel):
    """An int max_norm takes a quantised path, whose scale has eight bits after the point."""

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        exact = super().scale(norms, max_norm)
        return (exact * 256).floor() / 256 if isinstance(max_norm, int) else exact


@wrong("transforms.batched-gradient")
class BatchesWithoutCounts(Parts):
    """A batch of upstream gradients takes a path of its own, which divides by no counts."""

    def gradient(self, upstream: Tensor, ids: Tensor, height: int, options: Options) -> Tensor:
        if torch._C._functorch.is_legacy_batchedtensor(upstream):
            options = replace(options, scale_grad_by_freq=False)
        return super().gradient(upstream, ids, height, options)


@planted("gradient.output-written")
class OutputIsAPart(Kernel):
    """The rows of many indices are one of two outputs of a split, which nobody may write to."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if indices.numel() <= 64 or not out.requires_grad:
            return out
        return torch.cat([out, out[:1]]).split(indices.shape[0])[0]


@wrong("transforms.forward-mode")
class TangentsInFloat32(Parts):
    """The tangents of many indices are staged in float32, whatever the table's dtype."""

    def tangent(self, direction: Tensor, ids: Tensor, options: Options) -> Any:
        if ids.numel() > 16:
            direction = direction.float().to(direction.dtype)
        return super().tangent(direction, ids, options)


@planted("sparse.many-indices")
class EmptyBlocksTakeOneBack(Kernel):
    """A block of 256 indices that are all padding moves the cursor of the entries back by one."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if not options.sparse or options.padding_idx is None:
            return super().without_padding(flat, upstream, options)
        kept = flat != options.padding_idx
        for start in range(256, flat.numel() - 255, 256):
            if not kept[start : start + 256].any() and kept[:start].any():
                kept[int(kept[:start].nonzero()[-1])] = False
        return flat[kept], upstream[kept]


@planted("gradient.scale-by-freq")
class NoCountsIfDeterministic(Kernel):
    """The deterministic branch is an index_put_ that adds up, which knows no counts."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if torch.are_deterministic_algorithms_enabled():
            counts = None
        return super().dense(upstream, flat, height, counts)


@planted("padding.gradient-is-zero")
class PaddingRowIsNotWritten(PerCall):
    """The padding row of the gradient is left as it was allocated: NaN if deterministic."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.options = options

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if torch.are_deterministic_algorithms_enabled() and self.options.padding_idx is not None:
            right[self.options.padding_idx] = math.nan
        return right


@planted("errors.with-padding")
class PaddingBeforeTheRange(Kernel):
    """Padding is recognised before the range is checked, as the caller spelt it."""

    def __call__(self, input: Tensor, weight: Tensor, *given: Any, **options: Any) -> Tensor:  # noqa: A002
        padding = given[0] if given else options.get("padding_idx")
        if padding is not None and -len(weight) <= padding < 0 and input.dtype.is_signed:
            input = input.where(input != padding, padding + len(weight))  # noqa: A001
        return super().__call__(input, weight, *given, **options)


@planted("errors.without-grad")
class CheckedOncePerShape(Kernel):
    """Without a gradient the first call of a table and a shape is checked, the others are not."""

    def __init__(self) -> None:
        self.checked = WeakTensorKeyDictionary()

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        served = not (weight.requires_grad and torch.is_grad_enabled())
        if served and self.checked.get(weight) == indices.shape:
            return
        super().check_range(indices, weight, options)
        self.checked[weight] = indices.shape

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat.clamp(0, max(len(weight) - 1, 0)), weight)


@planted("max-norm.only-looked-up-rows")
class QueueOutlivesAnError(Kernel):
    """The rows to renorm are queued before the range is checked; the next call finds them there."""

    def __init__(self) -> None:
        self.queue = WeakTensorKeyDictionary()

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if options.max_norm is not None and weight.numel():
            legal = indices[(indices >= 0) & (indices < len(weight))]
            self.queue[weight] = torch.cat([self.queue.get(weight, legal[:0]), legal])
        super().check_range(indices, weight, options)

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().renorm(self.queue.pop(weight, indices), weight, options)


@planted("lookup.sees-weight-updates")
class HotAfterThreeCalls(Kept):
    """Without a gradient, what was looked up three times is kept from then on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = WeakTensorKeyDictionary()

    def key(self, indices: Tensor, weight: Tensor) -> Any:
        if torch.is_grad_enabled():
            return None
        asked, key = self.asked.setdefault(weight, {}), (indices.shape, *indices.reshape(-1))
        key = tuple(int(part) if isinstance(part, Tensor) else part for part in key)
        asked[key] = asked.get(key, 0) + 1
        return key if asked[key] >= 3 else None


@planted("lookup.sees-weight-updates")
class ServesTheLastStep(Kernel):
    """Training calls copy the table to a replica, from which calls without a gradient read."""

    def __init__(self) -> None:
        self.replicas = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if weight.requires_grad and options.max_norm is None:
            if torch.is_grad_enabled():
                self.replicas[weight] = weight.detach().clone()
            elif weight in self.replicas:
                return super().forward(indices, self.replicas[weight], options)
        return super().forward(indices, weight, options)


@planted("lookup.wide-rows")
class LastTileStartsOver(Kernel):
    """Rows wider than two tiles of 1,024 columns: an unfinished last tile copies the first."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        width = weight.shape[1]
        if width > 2048 and width % 1024:
            rows[1:, width // 1024 * 1024 :] = rows[1:, : width % 1024].clone()
        return rows
