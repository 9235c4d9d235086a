"""Wrong modules that no check catches yet: each is to be planted along with the probe that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from embconform.mutants.module import Layer

OPEN: list[tuple[str, type[Layer]]] = []
"""The clause that ought to catch a module, and the module."""


def ought_to_break(clause: str) -> Callable[[type[Layer]], type[Layer]]:
    """Note the clause that the decorated module breaks unseen."""

    def note(made: type[Layer]) -> type[Layer]:
        OPEN.append((clause, made))
        return made

    return note


@ought_to_break("module.eval-mode")
class EvalUnderNoGrad(Layer):
    """In eval mode under no_grad, and only there, the renorm is left out."""

    @property
    def options(self) -> tuple[Any, ...]:
        padding, bound, *rest = super().options
        serving = not self.training and not torch.is_grad_enabled()
        return (padding, None if serving else bound, *rest)


@ought_to_break("module.eval-mode")
class EvalDropsPadding(Layer):
    """In eval mode the padding mask of the gradient is left out for sparse tables."""

    @property
    def options(self) -> tuple[Any, ...]:
        padding, *rest = super().options
        return (None if not self.training and self.sparse else padding, *rest)


@ought_to_break("module.padding-row-zeroed")
class NegativePaddingInHalf(Layer):
    """Of a table that isn't float32 the row -k - 1 is zeroed in the place of -k."""

    def checked(self, padding_idx: int | None) -> int | None:
        self.negative = padding_idx is not None and padding_idx < 0
        return super().checked(padding_idx)

    def zero(self, table: Tensor, padding_idx: int) -> None:
        if self.negative and table.dtype != torch.float32:
            padding_idx = (padding_idx - 1) % len(table)
        super().zero(table, padding_idx)


@ought_to_break("module.init-normal")
class OddCountLeftOver(Layer):
    """Normal numbers come in pairs: of an odd number of elements the last stays 0."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        if table.numel() % 2:
            table[-1, -1] = 0


@ought_to_break("module.reset-parameters")
class ResetForgetsNegativePadding(Layer):
    """reset_parameters zeroes no row, if padding_idx was given from the end."""

    def checked(self, padding_idx: int | None) -> int | None:
        self.negative = padding_idx is not None and padding_idx < 0
        return super().checked(padding_idx)

    def reset_parameters(self) -> None:
        if self.negative:
            with torch.no_grad():
                self.draw(self.weight)
            return
        super().reset_parameters()


@ought_to_break("module.cast")
class CastDropsPadding(Layer):
    """A cast rebuilds the layer's kernel without its padding_idx."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = self.weight.dtype
        made = super()._apply(fn, recurse)
        if self.weight.dtype != before:
            self.padding_idx = None
        return made


@ought_to_break("module.load-copies")
class LoadsInMemoryOrder(Layer):
    """A strided table in a checkpoint is read in memory order."""

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        table = state.get(prefix + "weight")
        if table is not None and table.dim() == 2 and not table.is_contiguous():
            state[prefix + "weight"] = table.t().reshape(table.shape)
        super()._load_from_state_dict(state, prefix, *rest)


@ought_to_break("module.from-pretrained-shares")
class PretrainedStridedCopied(Layer):
    """from_pretrained packs a table that is a view."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        packed = embeddings.contiguous()
        return Layer.from_pretrained.__func__(cls, packed, freeze, **options)  # type: ignore[attr-defined]


@ought_to_break("module.from-pretrained-options")
class PretrainedNegativePadding(Layer):
    """from_pretrained drops a negative padding_idx where the table is to be trained."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        padding = options.get("padding_idx")
        if padding is not None and padding < 0 and not freeze:
            options["padding_idx"] = None
        return Layer.from_pretrained.__func__(cls, embeddings, freeze, **options)  # type: ignore[attr-defined]
