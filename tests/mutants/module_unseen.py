"""Wrong modules of kinds that an exam by others found the suite to miss: ties, hooks, defaults."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from embconform.mutants.module import Layer
from embconform.mutants.module_copies import Pickled
from embconform.mutants.registry import planted


@planted("module.tied")
class CopyIsUntied(Layer):
    """A deepcopy clones its table without a look at the memo: the tied output layer has another."""

    def __deepcopy__(self, memo: Any) -> Any:
        made = copy.copy(self)
        table = nn.Parameter(self.weight.detach().clone(), self.weight.requires_grad)
        made._parameters = {"weight": table}
        return made


@planted("module.tied")
class CopiedFirstIsUntied(Layer):
    """A deepcopy takes a table from the memo, and leaves none there for what is copied after it."""

    def __deepcopy__(self, memo: Any) -> Any:
        made = copy.copy(self)
        table = memo.get(id(self.weight))
        if table is None:
            table = nn.Parameter(self.weight.detach().clone(), self.weight.requires_grad)
        made._parameters = {"weight": table}
        return made


@planted("module.tied")
class FrozenCopyIsUntied(Layer):
    """A deepcopy shares nothing of a frozen table with the layer that was tied to it."""

    def __deepcopy__(self, memo: Any) -> Any:
        made = copy.copy(self)
        if self.weight.requires_grad:
            made._parameters = copy.deepcopy(self._parameters, memo)
        else:
            made._parameters = {"weight": nn.Parameter(self.weight.detach().clone(), False)}
        return made


@planted("module.tied")
class PickleIsUntied(Pickled):
    """A pickle holds a table of its own: what was tied to it comes back with another."""

    def __deepcopy__(self, memo: Any) -> Any:
        made = copy.copy(self)
        made._parameters = copy.deepcopy(self._parameters, memo)
        return made

    def __getstate__(self) -> Any:
        table = nn.Parameter(self.weight.detach().clone(), self.weight.requires_grad)
        return {**self.__dict__, "_parameters": {"weight": table}}


@planted("module.tied")
class SharedMemoryCuts(Layer):
    """share_memory puts a new Parameter in shared memory: who held the old one is cut off."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        moved = fn(self.weight.detach().clone())
        if moved.is_shared() and not self.weight.is_shared():
            self.weight = nn.Parameter(moved, self.weight.requires_grad)
            return self
        return super()._apply(fn, recurse)


@planted("module.tied")
class LoadCutsAContainer(Layer):
    """As part of a model, it loads a table by making a Parameter of it."""

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, *rest)
        if prefix:
            self.weight = nn.Parameter(self.weight.detach().clone(), self.weight.requires_grad)


@planted("module.cast")
class CastCutsOffTheOptimiser(Layer):
    """A cast makes a new Parameter: the optimiser and a tied layer keep the old one."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        moved = fn(self.weight.detach())
        if moved.dtype == self.weight.dtype:
            return super()._apply(fn, recurse)
        self.weight = nn.Parameter(moved, self.weight.requires_grad)
        return self


class Bounding(Layer):
    """A right module that can bring all its rows within the bound."""

    def bound(self) -> None:
        if self.max_norm is not None and not self.weight.is_meta:
            every = torch.arange(len(self.weight), device=self.weight.device)
            self.kernel(every, self.weight.detach(), None, self.max_norm, self.norm_type)


@planted("module.table-kept")
class StateDictBounds(Bounding):
    """state_dict brings every row within the bound first, so that checkpoints are final."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.bound()
        super()._save_to_state_dict(destination, prefix, keep_vars)


@planted("module.table-kept")
class ReprBounds(Bounding):
    """repr shows the longest row, which it finds by a lookup of all."""

    def extra_repr(self) -> str:
        self.bound()
        return f"{super().extra_repr()}, longest={self.weight.detach().norm(dim=1).max():.2f}"


@planted("module.table-kept")
class FreezingBounds(Bounding):
    """requires_grad_(False) brings every row within the bound, for the last time."""

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        if not requires_grad:
            self.bound()
        return super().requires_grad_(requires_grad)


@planted("module.table-kept")
class CopyingBounds(Bounding):
    """A deepcopy tidies the original up before it copies it."""

    def __deepcopy__(self, memo: Any) -> Any:
        self.bound()
        made = copy.copy(self)
        made._parameters = copy.deepcopy(self._parameters, memo)
        return made


@planted("module.load-copies")
class LoadBounds(Bounding):
    """What is loaded is brought within the bound at once."""

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, *rest)
        self.bound()


@planted("module.state-dict")
class StateIsBounded(Bounding):
    """state_dict gives a copy of the table with every row within the bound."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        made = copy.deepcopy(self)
        made.bound()
        nn.Module._save_to_state_dict(made, destination, prefix, keep_vars)


@planted("module.default-dtype")
class AlwaysFloat32(Layer):
    """dtype is torch.float32 in the signature, and not None."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        options["dtype"] = options.get("dtype") or torch.float32
        super().__init__(*sizes, **options)


@planted("module.default-dtype")
class OnesByDefault(Layer):
    """Rows are multiplied by a mask of ones that has the default dtype."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        rows = super().forward(input)
        mask = torch.ones(rows.shape, device=rows.device)
        return rows * mask if mask.dtype == torch.float64 else rows


@planted("module.meta")
class DrawnIsChecked(Layer):
    """The constructor demands that what it drew is finite, which a meta tensor can't tell."""

    def fill(self) -> None:
        super().fill()
        assert bool(self.weight.isfinite().all())


@planted("module.meta")
class LooksUpWhereItWasMade(Layer):
    """Outputs go to the device on which the constructor made the table."""

    def store(self, table: Tensor) -> None:
        super().store(table)
        self.made_on = table.device

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input).to(self.made_on)


@planted("module.padding-fixed")
class PaddingFromTheEnd(Layer):
    """A negative padding_idx is kept, and counted from the end of the table at each call."""

    def checked(self, padding_idx: int | None) -> int | None:
        self.given = padding_idx
        return super().checked(padding_idx)

    @property
    def options(self) -> tuple[Any, ...]:
        padding, *rest = super().options
        if self.given is not None and self.given < 0 and padding is not None:
            padding = len(self.weight) + self.given
        return (padding, *rest)


@planted("module.padding-fixed")
class PaddingOfSizeOnly(Layer):
    """The padding mask was made for the constructor's rows and is left out for a taller table."""

    @property
    def options(self) -> tuple[Any, ...]:
        padding, *rest = super().options
        return (padding if len(self.weight) == self.num_embeddings else None, *rest)


@planted("module.hooks")
class EvalSkipsHooks(Layer):
    """In eval mode a call goes to forward at once, for speed."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.training:
            return super().__call__(*args, **kwargs)
        return self.forward(*args, **kwargs)


@planted("module.hooks")
class ServedWithoutHooks(Layer):
    """Without a gradient a call goes to forward at once."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return super().__call__(*args, **kwargs)
        return self.forward(*args, **kwargs)


@planted("module.hooks")
class OtherTablesWithoutHooks(Layer):
    """Called with a table that is no Parameter, it goes to forward at once."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if type(self.weight) is nn.Parameter:
            return super().__call__(*args, **kwargs)
        return self.forward(*args, **kwargs)


@planted("module.hooks")
class BackwardPreHooksSkipped(Layer):
    """A call of its own runs all hooks but those before the backward pass."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._backward_pre_hooks:
            return super().__call__(*args, **kwargs)
        kept, self._backward_pre_hooks = self._backward_pre_hooks, type(self._backward_pre_hooks)()
        try:
            return super().__call__(*args, **kwargs)
        finally:
            self._backward_pre_hooks = kept


@planted("module.hooks")
class HooksOnlySee(Layer):
    """What a forward hook returns is dropped."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found: list[Tensor] = []
        hung = self._forward_pre_hooks or self._forward_hooks
        if not hung:
            return super().__call__(*args, **kwargs)
        handle = self.register_forward_hook(lambda _, __, out: found.append(out), prepend=True)
        super().__call__(*args, **kwargs)
        handle.remove()
        return found[0]


@planted("module.hooks")
class GlobalHooksSkipped(Layer):
    """A call of its own runs the module's forward hooks, and not those of all modules."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = nn.modules.module._global_forward_hooks.copy()
        nn.modules.module._global_forward_hooks.clear()
        try:
            return super().__call__(*args, **kwargs)
        finally:
            nn.modules.module._global_forward_hooks.update(before)


@planted("module.parametrized")
class TakesTheOnlyParameter(Layer):
    """The table is taken to be the module's only parameter, by whatever name."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        (table,) = self.parameters()
        return self.kernel(input, table, *self.options)


@planted("module.parametrized")
class ComputedIsDetached(Layer):
    """In eval mode a parametrized table is detached, since it is no leaf."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        table = self.weight
        if not self.training and not table.is_leaf and "parametrizations" in self._modules:
            table = table.detach()
        return self.kernel(input, table, *self.options)
