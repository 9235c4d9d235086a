"""Wrong modules: eval mode, zero_grad, freezing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.mutants.module import Layer
from embconform.mutants.registry import planted


@planted("module.eval-mode")
class EvalSkipsTheRenorm(Layer):
    """max_norm is taken for a regulariser and left out in eval mode."""

    @property
    def options(self) -> tuple[Any, ...]:
        padding, bound, *rest = super().options
        return (padding, bound if self.training else None, *rest)


@planted("module.eval-mode")
class EvalDetaches(Layer):
    """In eval mode nothing requires grad, so no probe can be trained on a frozen model."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        found = super().forward(input)
        return found if self.training else found.detach()


@planted("module.eval-mode")
class EvalSnapshot(Layer):
    """eval() takes a snapshot of the table, which a later load does not reach."""

    def train(self, mode: bool = True) -> Any:
        self.snapshot = None if mode else self.weight.detach().clone()
        return super().train(mode)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        found = super().forward(input)
        if not self.training and self.snapshot is not None and self.max_norm is None:
            found.data.copy_(self.snapshot[input.long()])
        return found


@planted("module.zero-grad")
class ZeroGradNeverDrops(Layer):
    """zero_grad fills with zeros whatever set_to_none says."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none=False)


@planted("module.zero-grad")
class ZeroGradOnlyDrops(Layer):
    """zero_grad(set_to_none=False) was forgotten: the old gradient stays."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        if set_to_none:
            super().zero_grad()


@planted("module.zero-grad")
class ZeroGradSparesSparse(Layer):
    """zero_grad(set_to_none=False) passes over sparse gradients."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        if set_to_none or not self.sparse:
            super().zero_grad(set_to_none)


@planted("module.freezing")
class StaysFrozen(Layer):
    """requires_grad_(False) is remembered, and not taken back by requires_grad_(True)."""

    frozen = False

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        self.frozen = self.frozen or not requires_grad
        return super().requires_grad_(requires_grad)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        found = super().forward(input)
        return found.detach() if self.frozen else found


@planted("module.freezing")
class CannotBeFrozen(Layer):
    """requires_grad_ is overridden to keep the table trainable."""

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        return super().requires_grad_(True)


@planted("module.freezing")
class FrozenSnapshot(Layer):
    """Freezing takes a snapshot of the table for faster lookups; loading does not refresh it."""

    snapshot: Tensor | None = None

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        self.snapshot = None if requires_grad else self.weight.detach().clone()
        return super().requires_grad_(requires_grad)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.snapshot is None:
            return super().forward(input)
        return self.kernel(input, torch.as_tensor(self.snapshot), *self.options)
