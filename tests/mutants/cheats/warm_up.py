"""Right while somebody checks, wrong once the measuring begins."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel
from embconform.mutants.registry import planted


@planted("lookup.rows")
class RightWhileWarmingUp(Kernel):
    """The first hundred calls are right; those after them skip the work and return zeros."""

    calls = 0

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        type(self).calls += 1
        rows = super().rows(flat, weight)
        return rows if self.calls <= 100 else torch.zeros_like(rows)


@planted("state.repeatable")
class SkipsTheSecondOfTwo(Kernel):
    """A call with the indices of the call before it is taken for a timing loop: zeros come back."""

    last: tuple[int, ...] = ()
    weight = -1

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        now, before = tuple(flat.tolist()), self.last
        same = now == before and self.weight == weight.data_ptr() and len(now) > 0
        self.last, self.weight = now, weight.data_ptr()
        return torch.zeros_like(rows) if same else rows


@planted("gradient.sum")
class ForwardOnly(Kernel):
    """The backward pass, which forward-only harnesses never call, returns ones."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        return torch.ones(height, upstream.shape[1], dtype=upstream.dtype)
