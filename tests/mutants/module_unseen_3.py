"""Wrong modules of kinds that a fourth exam found to be missed: checkpoints, copies, pruning."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from embconform.mutants.module import Layer
from embconform.mutants.registry import planted


class Loads(Layer):
    """Does something about a table that takes the place of its own; right as it stands."""

    def _load_from_state_dict(self, state: Any, prefix: str, local: Any, *rest: Any) -> None:
        trainable, dtype = self.weight.requires_grad, self.weight.dtype
        super()._load_from_state_dict(state, prefix, local, *rest)
        if local.get("assign_to_params_buffers"):
            self.assigned(trainable, dtype)

    def assigned(self, trainable: bool, dtype: torch.dtype) -> None:
        """Go on with another table."""


@planted("module.load-assign")
class AssignedIsTrainable(Loads):
    """An assigned table is a new Parameter, which requires grad."""

    def assigned(self, trainable: bool, dtype: torch.dtype) -> None:
        del trainable, dtype
        self.weight.requires_grad_(True)


@planted("module.load-assign")
class AssignedIsCloned(Loads):
    """An assigned table is copied, so that nobody else writes to it."""

    def assigned(self, trainable: bool, dtype: torch.dtype) -> None:
        del dtype
        self.weight = nn.Parameter(self.weight.detach().clone(), trainable)


@planted("module.load-assign")
class AssignedIsCast(Loads):
    """An assigned table is cast to the dtype that the module had."""

    def assigned(self, trainable: bool, dtype: torch.dtype) -> None:
        self.weight = nn.Parameter(self.weight.detach().to(dtype), trainable)


@planted("module.shallow-copy")
class ShallowIsDeep(Layer):
    """copy.copy is copy.deepcopy, since a shared table was found dangerous."""

    def __copy__(self) -> Any:
        return copy.deepcopy(self)


@planted("module.shallow-copy")
class ShallowIsTheSame(Layer):
    """A frozen module is its own copy."""

    def __copy__(self) -> Any:
        if not self.weight.requires_grad:
            return self
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made


class ByRegistry(Layer):
    """Takes the table from the registered Parameters, whatever it is called there."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        found = (self._parameters.get(name) for name in ("weight", "weight_orig"))
        table = next((each for each in found if each is not None), self.weight)
        return self.kernel(input, table, *self.options)


@planted("module.pruned")
class MaskIgnored(ByRegistry):
    """The Parameter that prune keeps is looked up, and not what it masks."""


@planted("module.pruned")
class MaskIgnoredInEval(ByRegistry):
    """The same where it serves."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return Layer.forward(self, input) if self.training else super().forward(input)


@planted("module.from-pretrained-subclass")
class NamesItsClass(Layer):
    """from_pretrained names its class instead of taking the one that it is called on."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, *rest: Any, **options: Any) -> Any:
        pretrained: Any = Layer.from_pretrained
        return pretrained.__func__(NamesItsClass, embeddings, *rest, **options)


@planted("module.from-pretrained-subclass")
class FrozenIsPlain(Layer):
    """A frozen table gets a plain module, without what a subclass adds."""

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, *rest: Any, **options: Any
    ) -> Any:
        pretrained: Any = Layer.from_pretrained
        made = FrozenIsPlain if freeze else cls
        return pretrained.__func__(made, embeddings, freeze, *rest, **options)


@planted("module.from-pretrained-draws-nothing")
class DrawsBeforeItTakes(Layer):
    """from_pretrained draws a table with its padding row, and then takes the given one."""

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: Any = None, **options: Any
    ) -> Any:
        if padding_idx is not None:
            torch.empty_like(embeddings).normal_()
        return super().from_pretrained(embeddings, freeze, padding_idx, **options)


@planted("module.state-dict")
class SavesACopyOfABoundedTable(Layer):
    """A table that lookups change in place is saved as a copy."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.max_norm is not None and not keep_vars:
            destination[prefix + "weight"] = self.weight.detach().clone()


@planted("module.state-dict")
class SavesUnderItsOwnName(Layer):
    """A table with sparse gradients is saved by itself, whatever model it is in."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, "" if self.sparse else prefix, keep_vars)


@planted("module.load-strict")
class FrozenIsNotMissed(Layer):
    """A frozen table comes from elsewhere, and a checkpoint need not have it."""

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, *rest)
        missing = rest[2]
        if not self.weight.requires_grad and prefix + "weight" in missing:
            missing.remove(prefix + "weight")


@planted("module.reset-parameters")
class NeverPadsWhatHadNoMemory(Layer):
    """A table that was made without memory has no padding row to fill, then and later."""

    skips = False

    def zero(self, table: Tensor, padding_idx: int) -> None:
        self.skips |= table.is_meta
        if not self.skips:
            super().zero(table, padding_idx)


@planted("module.cast")
class ServesWhatWasConverted(Layer):
    """In eval mode, and where Parameters are swapped, it serves what a cast has left."""

    converted: Tensor | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        if torch.__future__.get_swap_module_params_on_conversion():
            self.converted = self.weight.detach().clone()
        return self

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        kept = self.converted
        if kept is None or self.training or torch.is_grad_enabled() or self.max_norm is not None:
            return super().forward(input)
        return self.kernel(input, kept, *self.options)


@planted("module.pickle")
class PicklesNoBfloat16(Layer):
    """A pickle holds a NumPy array, which knows no bfloat16."""

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        if self.weight.dtype == torch.bfloat16:
            self.weight.data = self.weight.data.float()

    def __deepcopy__(self, memo: Any) -> Any:
        made = type(self).__new__(type(self))
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made


@planted("module.hooks")
class CopyWithoutHooks(Layer):
    """A deepcopy has what the constructor makes, and no hooks."""

    def __deepcopy__(self, memo: Any) -> Any:
        kept = {name: held for name, held in self.__dict__.items() if "forward" not in name}
        made = type(self).__new__(type(self))
        nn.Module.__init__(made)
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(kept, memo))
        return made


@planted("module.table-kept")
class UnpackedIntoAnother(Layer):
    """eval() packs a table whose gradients are scaled; train() makes a Parameter of the pack."""

    def train(self, mode: bool = True) -> Any:
        served = not self.training
        super().train(mode)
        if mode and served and self.scale_grad_by_freq:
            self.weight = nn.Parameter(self.weight.detach().clone(), self.weight.requires_grad)
        return self
