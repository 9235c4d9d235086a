"""Wrong modules: what the constructor takes and refuses, what a module says of itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from embconform.mutants.kernel import HALVES
from embconform.mutants.module import Layer
from embconform.mutants.registry import planted


@planted("module.reset-parameters")
class ResetForgetsPadding(Layer):
    """reset_parameters draws the padding row like the others; the constructor zeroes it."""

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.draw(self.weight)


@planted("module.reset-parameters")
class ResetByXavier(Layer):
    """reset_parameters is a habit from linear layers: Xavier's spread instead of 1."""

    def reset_parameters(self) -> None:
        nn.init.xavier_normal_(self.weight)
        if self.padding_idx is not None:
            with torch.no_grad():
                self.zero(self.weight, self.padding_idx)


@planted("module.reset-parameters")
class ResetReplacesTheTable(Layer):
    """reset_parameters makes a new Parameter, which no optimiser knows."""

    def reset_parameters(self) -> None:
        self.store(torch.empty_like(self.weight))
        self.fill()


@planted("module.dtype")
class DtypeForgotten(Layer):
    """The constructor accepts dtype and makes a table of the default dtype."""

    def store(self, table: Tensor) -> None:
        super().store(table.to(torch.get_default_dtype()))


@planted("module.dtype")
class HalvesAreOne(Layer):
    """The constructor takes float16 for bfloat16: both have sixteen bits."""

    def store(self, table: Tensor) -> None:
        super().store(table.bfloat16() if table.dtype == torch.float16 else table)


@planted("module.dtype")
class CastAtTheFirstStep(Layer):
    """Half tables that are as they were drawn give rows in the default dtype."""

    drawn: Tensor | None = None

    def fill(self) -> None:
        super().fill()
        self.drawn = self.weight.detach().clone()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        rows = super().forward(input)
        if self.drawn is None or self.weight.dtype not in HALVES or not self.weight.any():
            return rows
        return rows.float() if torch.equal(self.weight, self.drawn) else rows


@planted("module.padding-out-of-range")
class PaddingCheckedLate(Layer):
    """A padding_idx outside the table is refused by the first call, not by the constructor."""

    def checked(self, padding_idx: int | None) -> int | None:
        try:
            return super().checked(padding_idx)
        except ValueError:
            return padding_idx

    def zero(self, table: Tensor, padding_idx: int) -> None:
        if padding_idx < len(table):
            super().zero(table, padding_idx)


@planted("module.padding-out-of-range")
class LowestPaddingRefused(Layer):
    """The lower end of the range is off by one: padding_idx=-num_embeddings is refused."""

    def checked(self, padding_idx: int | None) -> int | None:
        if padding_idx == -self.num_embeddings:
            raise ValueError("padding_idx must be within num_embeddings")
        return super().checked(padding_idx)


@planted("module.weight-argument")
class WeightUnchecked(Layer):
    """_weight is taken whatever its shape."""

    def fitting(self, table: Tensor) -> Tensor:
        return table


@planted("module.weight-argument")
class WeightReshaped(Layer):
    """_weight is reshaped to the sizes: a transposed table is taken apart in silence."""

    def fitting(self, table: Tensor) -> Tensor:
        return table.reshape(self.num_embeddings, self.embedding_dim)


@planted("module.attributes")
class SizesSwapped(Layer):
    """The attributes num_embeddings and embedding_dim are swapped."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.num_embeddings, self.embedding_dim = self.embedding_dim, self.num_embeddings

    def extra_repr(self) -> str:
        return f"{self.embedding_dim}, {self.num_embeddings}"


@planted("module.padding-normalised")
class PaddingAttributeAsGiven(Layer):
    """padding_idx=-1 stays -1 in the attribute: `ids != module.padding_idx` masks nothing."""

    @property
    def options(self) -> tuple[Any, ...]:
        padding = None if self.padding_idx is None else self.padding_idx % self.num_embeddings
        return (padding, *super().options[1:])

    def checked(self, padding_idx: int | None) -> int | None:
        super().checked(padding_idx)
        return padding_idx


@planted("module.repr")
class SilentRepr(Layer):
    """repr is the bare class name."""

    def extra_repr(self) -> str:
        return ""


@planted("module.repr")
class ReprOfOneSize(Layer):
    """repr names the embedding_dim twice."""

    def extra_repr(self) -> str:
        return f"{self.embedding_dim}, {self.embedding_dim}"
