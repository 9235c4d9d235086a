"""max_norm: what grad mode, earlier calls and the backward pass have to do with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


class RenormsSometimes(Kernel):
    """Drops max_norm where a condition does not hold."""

    def renorms(self, weight: Tensor) -> bool:
        raise NotImplementedError

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if not self.renorms(weight):
            options = replace(options, max_norm=None)
        return super().forward(indices, weight, options)


@planted("max-norm.without-grad")
class FrozenNotRenormed(RenormsSometimes):
    """A frozen table is not renormed."""

    def renorms(self, weight: Tensor) -> bool:
        return weight.requires_grad


@planted("max-norm.without-grad")
class NoGradNotRenormed(RenormsSometimes):
    """Under no_grad nothing is renormed, as if evaluation meant hands off."""

    def renorms(self, weight: Tensor) -> bool:
        return torch.is_grad_enabled() or not weight.requires_grad


@planted("max-norm.without-grad")
class InferenceNotRenormed(RenormsSometimes):
    """Under inference_mode the renorm is skipped."""

    def renorms(self, weight: Tensor) -> bool:
        return not torch.is_inference_mode_enabled()


@planted("max-norm.later-calls")
class RemembersRenormedRows(Kernel):
    """A row that was looked at once is believed to obey the bound for ever."""

    def __init__(self) -> None:
        self.table: Tensor | None = None
        self.done: Any = set()

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if self.table is None or self.table.data_ptr() != weight.data_ptr():
            self.table, self.done = weight.detach(), set()
        fresh = [i for i in self.flat(indices).tolist() if (i, options) not in self.done]
        super().renorm(torch.tensor(fresh, dtype=torch.int64), weight, options)
        self.done.update((i, options) for i in fresh)


@planted("max-norm.later-calls")
class RenormsFirstCall(Kernel):
    """The renorm is skipped where the call before had the same table and bound."""

    def __init__(self) -> None:
        self.last: tuple[Tensor, float | None] | None = None

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        same = self.last is not None and self.last[0].data_ptr() == weight.data_ptr()
        if not same or self.last is None or self.last[1] != options.max_norm:
            super().renorm(indices, weight, options)
        self.last = (weight.detach(), options.max_norm)


@planted("max-norm.straight-through")
class GradientThroughScale(Kernel):
    """The upstream gradient is multiplied by the scale of its row."""

    def __init__(self) -> None:
        self.scales: Tensor | None = None

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        before = weight.index_select(0, self.flat(indices)).double()
        super().renorm(indices, weight, options)
        after = weight.index_select(0, self.flat(indices)).double()
        self.scales = (after.norm(dim=1) / before.norm(dim=1)).nan_to_num(1.0, 1.0, 1.0)

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        scales = self.scales
        known = scales is not None and scales.numel() == indices.numel()
        if options.max_norm is not None and scales is not None and known:
            scales = scales.reshape(*indices.shape, 1)
            upstream = (upstream.double() * scales).to(upstream.dtype)
        return super().gradient(upstream, indices, height, options)


@planted("max-norm.straight-through")
class GradientDetached(Kernel):
    """Rows that were renormed lose their gradient (Paddle docs#6806)."""

    def __init__(self) -> None:
        self.changed: Tensor | None = None

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        before = weight.detach().clone()
        super().renorm(indices, weight, options)
        self.changed = (before != weight).any(1)

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        if options.max_norm is None or options.sparse or self.changed is None:
            return summed
        if self.changed.shape[0] != height:
            return summed
        return summed.masked_fill(self.changed.unsqueeze(1), 0.0)
