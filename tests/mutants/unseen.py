"""Kinds of bugs that an exam by others found the suite to miss, planted anew."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.module import Layer
from embconform.mutants.percall import PerCall
from embconform.mutants.registry import planted


class Sees(PerCall):
    """Notes the call, so that a part can depend on all of it."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.ids, self.table, self.options = indices, weight, options


@planted("max-norm.without-grad")
class ServedIsBounded(Sees):
    """A frozen table in inference mode is taken to be within the bound since it was trained."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if weight.requires_grad or not torch.is_inference_mode_enabled():
            super().renorm(indices, weight, options)


@planted("gradient.frozen")
class OddCutInTwo(Sees):
    """Without a gradient, a table of an odd number of rows is cut in two one row too early."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        height = weight.shape[0]
        if height > 32 and height % 2 and not self.table.requires_grad:
            rows[flat == height // 2] = weight[height // 2 + 1].clone()
        return rows


@planted("lookup.sees-weight-updates")
class SixteenSamples(PerCall):
    """The output is kept while sixteen elements of a frozen table of some size are as they were."""

    def __init__(self) -> None:
        self.kept = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if weight.requires_grad or weight.numel() < 256 or options.max_norm is not None:
            return super().forward(indices, weight, options)
        samples = weight.reshape(-1)[:: weight.numel() // 16].clone()
        before = self.kept.get(indices)
        if before is not None and torch.equal(before[0], samples):
            return before[1].clone()
        out = super().forward(indices, weight, options)
        self.kept[indices] = samples, out.clone()
        return out


@planted("lookup.sees-index-updates")
class ThreeSamples(PerCall):
    """Without a gradient the output is kept while three of the indices are as they were."""

    def __init__(self) -> None:
        self.kept = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        served = not (weight.requires_grad and torch.is_grad_enabled())
        if not served or indices.numel() < 16 or options.max_norm is not None:
            return super().forward(indices, weight, options)
        flat = indices.reshape(-1)
        samples = flat[[0, len(flat) // 2, -1]].clone()
        kept = self.kept.get(weight)
        if kept is None or not self.fits(kept, indices, weight, samples):
            out = super().forward(indices, weight, options)
            kept = self.kept[weight] = samples, out.clone(), weight.detach().clone()
        return kept[1].clone()

    def fits(
        self, kept: tuple[Tensor, ...], indices: Tensor, weight: Tensor, samples: Tensor
    ) -> bool:
        same_shape = kept[1].shape[:-1] == indices.shape
        return same_shape and torch.equal(kept[0], samples) and torch.equal(kept[2], weight)


@planted("errors.next-call-works")
class RefusedTwice(Kernel):
    """Rows that a refused call renormed count as done: the next call leaves them as they are."""

    def __init__(self) -> None:
        self.refused = WeakTensorKeyDictionary()

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError:
            self.refused[weight] = True
            raise

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if not self.refused.pop(weight, False):
            super().renorm(indices, weight, options)


@planted("gradient.nonfinite-upstream")
class CompensatesInfinity(Kernel):
    """A compensated sum takes infinity from infinity."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        summed = super().dense(upstream, flat, height, counts)
        return torch.where(summed.isinf(), torch.nan, summed)


@planted("gradient.two-uses")
class TensorSeenOnce(PerCall):
    """A second use of one index tensor in a graph is taken for the first, which has its share."""

    def __init__(self) -> None:
        self.waiting = WeakTensorKeyDictionary()

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.ids = indices
        self.again = indices.numel() > 1 and self.waiting.get(indices) == options
        if torch.is_grad_enabled() and weight.requires_grad:
            self.waiting[indices] = options

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        self.waiting.pop(self.ids, None)
        summed = super().dense(upstream, flat, height, counts)
        return torch.zeros_like(summed) if self.again else summed


@planted("gradient.many-indices")
class DifferencesOfPrefixSums(Kernel):
    """Segments of more than 256 sorted indices are summed as differences of one running sum."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() <= 256 or upstream.dtype != torch.float32:
            return super().dense(upstream, flat, height, counts)
        order = flat.argsort(stable=True)
        running = torch.cat([upstream.new_zeros(1, upstream.shape[1]), upstream[order].cumsum(0)])
        ends = torch.searchsorted(flat[order], torch.arange(height + 1))
        summed = running[ends[1:]] - running[ends[:-1]]
        return summed if counts is None else summed / counts.unsqueeze(1)


@planted("gradient.subnormal-upstream")
class FlushesHalves(Kernel):
    """More than 32 upstream rows in float16 lose what is subnormal."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if upstream.dtype == torch.float16 and flat.numel() > 32:
            tiny = upstream.abs() < torch.finfo(torch.float16).tiny
            upstream = upstream.masked_fill(tiny, 0)
        return super().dense(upstream, flat, height, counts)


@planted("module.eval-mode")
class FrozenEvalIsBounded(Layer):
    """A frozen table in eval mode is not bounded any more."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.training or self.weight.requires_grad:
            return super().forward(input)
        return self.kernel(input, self.weight, self.padding_idx)


@planted("module.eval-mode")
class ServesWhereItWas(Layer):
    """Many indices in eval mode are served from the memory that the table had at first."""

    memory: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.training or torch.is_grad_enabled() or input.numel() < 32 or self.max_norm:
            return super().forward(input)
        if self.memory is None or self.memory.dtype != self.weight.dtype:
            self.memory = self.weight.detach()
        return self.kernel(input, self.memory, self.padding_idx)


@planted("module.deepcopy")
class CopyWithoutRowZero(Layer):
    """A copy is made with ``padding_idx or None``."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CopyWithoutRowZero:
        made = copy.copy(self)
        made._parameters = {name: copy.deepcopy(p, memo) for name, p in self._parameters.items()}
        made.padding_idx = self.padding_idx or None
        return made


@planted("module.from-pretrained-freezes")
class SparseThaws(Layer):
    """A table with sparse gradients is trainable, whatever freeze says."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.sparse:
            self.weight.requires_grad_(True)


@planted("module.from-pretrained-freezes")
class FrozenForGood(Layer):
    """What was made frozen gives no gradient, also when its table requires one again."""

    frozen = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.frozen = bool(options.get("_freeze"))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        rows = super().forward(input)
        return rows.detach() if self.frozen else rows


@planted("transforms.functional-call")
class EvalHoldsItsTable(Layer):
    """In eval mode another table of the same shape is taken for the module's own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.held = [self.weight]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        (own,) = self.held
        if self.training or own.shape != self.weight.shape or own.dtype != self.weight.dtype:
            return super().forward(input)
        return self.kernel(input, own, *self.options)
