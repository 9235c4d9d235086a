"""Wrong modules: loaded, cast, copied, pickled."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from embconform.mutants.module import Layer
from embconform.mutants.registry import planted


@planted("module.load-copies")
class LoadReplacesTheParameter(Layer):
    """Loading makes a new Parameter: the optimiser goes on moving the old one."""

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        loaded = super().load_state_dict(*args, **kwargs)
        self.weight = nn.Parameter(self.weight.detach().clone())
        return loaded


@planted("module.load-copies")
class LoadAliasesTheCheckpoint(Layer):
    """Loading lays the table on the checkpoint's memory, to save a copy."""

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        loaded = super().load_state_dict(state, *args, **kwargs)
        if "weight" in state:
            self.weight.data = state["weight"].to(self.weight.dtype)
        return loaded


@planted("module.load-copies")
class LoadTakesTheDtype(Layer):
    """Loading gives the table the checkpoint's dtype."""

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        if "weight" in state:
            self.weight.data = self.weight.data.to(state["weight"].dtype)
        return super().load_state_dict(state, *args, **kwargs)


@planted("module.load-copies")
class LoadCutsOff(Layer):
    """Loading float64 into float32 cuts the last bits off instead of rounding."""

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        given = state.get("weight")
        if given is not None and given.dtype == torch.float64 and self.weight.dtype != given.dtype:
            cut = (given.view(torch.int64) >> 29 << 29).view(torch.float64)
            state = {**state, "weight": cut}
        return super().load_state_dict(state, *args, **kwargs)


@planted("module.load-strict")
class LenientByDefault(Layer):
    """strict is False by default."""

    def load_state_dict(self, state: Any, strict: bool = False, **kwargs: Any) -> Any:
        return super().load_state_dict(state, strict, **kwargs)


@planted("module.load-strict")
class LoadBroadcasts(Layer):
    """A checkpoint of one row is copied into every row, since copy_ broadcasts."""

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        given = state.get("weight")
        if given is not None and len(given) == 1:
            state = {**state, "weight": given.expand_as(self.weight)}
        return super().load_state_dict(state, *args, **kwargs)


@planted("module.load-strict")
class LoadsTheFirstRows(Layer):
    """A checkpoint with more rows than the table loads as far as the table goes."""

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        given = state.get("weight")
        if given is not None:
            state = {**state, "weight": given[: len(self.weight)]}
        return super().load_state_dict(state, *args, **kwargs)


@planted("module.cast")
class OutputOfTheFirstDtype(Layer):
    """The output keeps the dtype that the table had when the module was made."""

    def store(self, table: Tensor) -> None:
        super().store(table)
        self.first = table.dtype

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input).to(self.first)


@planted("module.cast")
class CastCutsOff(Layer):
    """A cast to bfloat16 keeps the upper sixteen bits."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = self.weight.data
        moved = super()._apply(fn, recurse)
        if before.dtype == torch.float32 and self.weight.dtype == torch.bfloat16:
            upper = (before.view(torch.int32) >> 16 << 16).view(torch.float32)
            self.weight.data.copy_(upper)
        return moved


@planted("module.cast")
class CastByHalf(Layer):
    """Every cast goes by float16 first, as in a mixed-precision trainer."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = self.weight.dtype
        moved = super()._apply(fn, recurse)
        if self.weight.dtype != before:
            self.weight.data = self.weight.data.half().to(self.weight.dtype)
        return moved


@planted("module.cast")
class CastFreezes(Layer):
    """A cast makes a new Parameter that is not trainable."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = self.weight.dtype
        moved = super()._apply(fn, recurse)
        if self.weight.dtype != before:
            self.weight = nn.Parameter(self.weight.data, requires_grad=False)
        return moved


@planted("module.deepcopy")
class CopyIsTied(Layer):
    """A deepcopy shares the table, since tables are large."""

    def __deepcopy__(self, memo: Any) -> Any:
        made = copy.copy(self)
        made._parameters = dict(self._parameters)
        return made


@planted("module.deepcopy")
class CopyForgetsOptions(Layer):
    """A deepcopy is a new module with the old table; max_norm and its kind are left behind."""

    def __deepcopy__(self, memo: Any) -> Any:
        rows, width = self.weight.shape
        made = type(self)(rows, width, dtype=self.weight.dtype)
        made.weight = nn.Parameter(self.weight.detach().clone(), self.weight.requires_grad)
        return made.train(self.training)


@planted("module.deepcopy")
class CopyIsThawed(Layer):
    """A deepcopy of a frozen module is trainable."""

    def __deepcopy__(self, memo: Any) -> Any:
        made = copy.copy(self)
        made._parameters = {"weight": nn.Parameter(self.weight.detach().clone())}
        return made


@planted("module.deepcopy")
class CopyReadsTheOriginal(Layer):
    """The lookup is a closure over the module: a deepcopy calls the original's."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.look = lambda ids: Layer.forward(self, ids)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.look(input)

    def __getstate__(self) -> Any:
        return {name: value for name, value in self.__dict__.items() if name != "look"}

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.look = lambda ids: Layer.forward(self, ids)

    def __deepcopy__(self, memo: Any) -> Any:
        made = type(self)(*self.weight.shape, *self.options)
        made.weight = nn.Parameter(self.weight.detach().clone(), self.weight.requires_grad)
        made.look = self.look
        return made.train(self.training)


class Pickled(Layer):
    """A right module with a pickle of its own; deepcopy does not go by it."""

    def __deepcopy__(self, memo: Any) -> Any:
        rows, width = self.weight.shape
        made = type(self)(rows, width, *self.options, dtype=self.weight.dtype)
        made.weight = nn.Parameter(self.weight.detach().clone(), self.weight.requires_grad)
        return made.train(self.training)


@planted("module.pickle")
class PickleForgetsMaxNorm(Pickled):
    """A checkpoint of the whole module was designed before there was max_norm."""

    def __getstate__(self) -> Any:
        return {**self.__dict__, "max_norm": None}


@planted("module.pickle")
class PickledInHalf(Pickled):
    """The pickle holds the table in float16, to save space."""

    def __getstate__(self) -> Any:
        halved = self.weight.detach().half().to(self.weight.dtype)
        table = nn.Parameter(halved, self.weight.requires_grad)
        return {**self.__dict__, "_parameters": {"weight": table}}


@planted("module.pickle")
class NotPicklable(Pickled):
    """A lambda among the attributes: torch.save of the module raises."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.hook = lambda table: table


@planted("module.pickle")
class ThawedByPickle(Pickled):
    """A frozen module comes back trainable."""

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.weight.requires_grad_(True)
