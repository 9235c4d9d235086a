"""Modules that go wrong where the constructor, a mode, an option and a layout meet."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from embconform.mutants.module import Layer
from embconform.mutants.registry import planted


@planted("module.eval-mode")
class EvalDropsFrequency(Layer):
    """In eval mode the gradient is not divided by frequencies."""

    @property
    def options(self) -> tuple[Any, ...]:
        *rest, by_frequency, sparse = super().options
        return (*rest, by_frequency and self.training, sparse)


@planted("module.init-normal")
class PairsRepeat(Layer):
    """The second number of each pair is the first with the other sign."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        flat = table.view(-1)
        half = flat.numel() // 2
        flat[1::2][:half] = -flat[0::2][:half]


@planted("module.init-normal")
class OneRowOfState(Layer):
    """The generator is seeded per block of 256 rows, each with the same seed."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        for start in range(256, len(table), 256):
            part = table[start : start + 256]
            part.copy_(table[: len(part)])


@planted("module.init-normal")
class Float64FromFloat32(Layer):
    """A float64 table is drawn in float32 with a standard deviation for its width."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        if table.dtype == torch.float64:
            table.mul_(table.shape[1] ** -0.5)


@planted("module.deepcopy")
class DeepcopyDropsFrequency(Layer):
    """deepcopy calls the constructor and hands on all options but scale_grad_by_freq."""

    def __deepcopy__(self, memo: Any) -> Any:
        made = type(self).__new__(type(self))
        nn.Module.__init__(made)
        for name, value in self.__dict__.items():
            made.__dict__[name] = copy.deepcopy(value, memo)
        made.scale_grad_by_freq = False
        return made


@planted("module.deepcopy")
class DeepcopyThaws(Layer):
    """A deepcopy of a frozen module in eval mode is in training mode again."""

    def __deepcopy__(self, memo: Any) -> Any:
        made = type(self).__new__(type(self))
        nn.Module.__init__(made)
        for name, value in self.__dict__.items():
            made.__dict__[name] = copy.deepcopy(value, memo)
        if not self.weight.requires_grad:
            made.training = True
        return made


@planted("module.pickle")
class PickleDropsNormType(Layer):
    """__setstate__ was written before norm_type: it is 2 again."""

    def __setstate__(self, state: Any) -> None:
        super().__setstate__({**state, "norm_type": 2.0})


@planted("module.cast")
class CastTruncates(Layer):
    """A cast of a wide table cuts off bits instead of rounding to nearest."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        old = self.weight.detach().clone()
        made = super()._apply(fn, recurse)
        if old.dtype == torch.float32 and self.weight.dtype == torch.bfloat16:
            self.weight.data.copy_((old.view(torch.int32) & -65536).view(torch.float32))
        return made


@planted("module.freezing")
class ThawedWithoutPadding(Layer):
    """Once frozen and trained again, the table has no padding mask any more."""

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        if requires_grad and not self.weight.requires_grad:
            self.thawed = True
        return super().requires_grad_(requires_grad)

    @property
    def options(self) -> tuple[Any, ...]:
        padding, *rest = super().options
        return (None if getattr(self, "thawed", False) else padding, *rest)


@planted("module.zero-grad")
class ZeroGradKeepsPadded(Layer):
    """zero_grad(set_to_none=False) of a padded layer leaves the padding row's neighbour."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        kept = None
        there = self.weight.grad
        if there is not None and not there.is_sparse and self.padding_idx is not None:
            kept = there[(self.padding_idx + 1) % len(there)].clone()
        super().zero_grad(set_to_none)
        if kept is not None and self.padding_idx is not None and not set_to_none:
            self.weight.grad[(self.padding_idx + 1) % len(kept)] = kept  # type: ignore[index]


@planted("max-norm.padding-row")
class ModuleBoundsWithoutPadding(Layer):
    """The module, unlike the function, holds the padding row back from the renorm."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.padding_idx is None or self.max_norm is None or self.weight.is_inference():
            return super().forward(input)
        row = self.weight.detach()[self.padding_idx].clone()
        found = super().forward(input)
        with torch.no_grad():
            self.weight.data[self.padding_idx] = row
            found.data[input == self.padding_idx] = row
        return found


@planted("module.eval-mode")
class EvalUnderNoGrad(Layer):
    """In eval mode under no_grad, and only there, the renorm is left out."""

    @property
    def options(self) -> tuple[Any, ...]:
        padding, bound, *rest = super().options
        serving = not self.training and not torch.is_grad_enabled()
        return (padding, None if serving else bound, *rest)


@planted("module.eval-mode")
class EvalDropsPadding(Layer):
    """In eval mode the padding mask of the gradient is left out for sparse tables."""

    @property
    def options(self) -> tuple[Any, ...]:
        padding, *rest = super().options
        return (None if not self.training and self.sparse else padding, *rest)


@planted("module.padding-row-zeroed")
class NegativePaddingInHalf(Layer):
    """Of a table that isn't float32 the row -k - 1 is zeroed in the place of -k."""

    def checked(self, padding_idx: int | None) -> int | None:
        self.negative = padding_idx is not None and padding_idx < 0
        return super().checked(padding_idx)

    def zero(self, table: Tensor, padding_idx: int) -> None:
        if self.negative and table.dtype != torch.float32:
            padding_idx = (padding_idx - 1) % len(table)
        super().zero(table, padding_idx)


@planted("module.init-normal")
class OddCountLeftOver(Layer):
    """Normal numbers come in pairs: of an odd number of elements the last stays 0."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        if table.numel() % 2:
            table[-1, -1] = 0


@planted("module.reset-parameters")
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


@planted("module.cast")
class CastDropsPadding(Layer):
    """A cast rebuilds the layer's kernel without its padding_idx."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = self.weight.dtype
        made = super()._apply(fn, recurse)
        if self.weight.dtype != before:
            self.padding_idx = None
        return made


@planted("module.load-copies")
class LoadsInMemoryOrder(Layer):
    """A strided table in a checkpoint is read in memory order."""

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        table = state.get(prefix + "weight")
        if table is not None and table.dim() == 2 and not table.is_contiguous():
            state[prefix + "weight"] = table.t().reshape(table.shape)
        super()._load_from_state_dict(state, prefix, *rest)


@planted("module.from-pretrained-shares")
class PretrainedStridedCopied(Layer):
    """from_pretrained packs a table that is a view."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        packed = embeddings.contiguous()
        return Layer.from_pretrained.__func__(cls, packed, freeze, **options)  # type: ignore[attr-defined]


@planted("module.from-pretrained-options")
class PretrainedNegativePadding(Layer):
    """from_pretrained drops a negative padding_idx where the table is to be trained."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        padding = options.get("padding_idx")
        if padding is not None and padding < 0 and not freeze:
            options["padding_idx"] = None
        return Layer.from_pretrained.__func__(cls, embeddings, freeze, **options)  # type: ignore[attr-defined]
