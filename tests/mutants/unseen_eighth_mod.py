"""Wrong modules of kinds that an eighth exam showed to be missed: what torch does around a module.

Replicas and their options, hooks of all modules, positions, modules that had no memory at first.
"""

from __future__ import annotations

import copy
import weakref
from functools import partial
from typing import Any

from torch import Tensor, nn

from embconform.mutants.module import Layer
from embconform.mutants.registry import planted


def outside(ids: Tensor, rows: int) -> bool:
    """Whether an index has no row."""
    return bool(ids.numel()) and (int(ids.min()) < 0 or int(ids.max()) >= rows)


class _Boxed:
    """An attribute that lies in a module's box."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, module: Any, owner: Any = None) -> Any:
        return self if module is None else module.box[self.name]

    def __set__(self, module: Any, value: Any) -> None:
        module.__dict__.setdefault("box", {})[self.name] = value


@planted("module.shallow-copy")
class OneBoxOfOptions(Layer):
    """The options lie in a box, which a shallow copy has in common with its original."""

    padding_idx: Any = _Boxed("padding_idx")
    max_norm: Any = _Boxed("max_norm")
    norm_type: Any = _Boxed("norm_type")
    scale_grad_by_freq: Any = _Boxed("scale_grad_by_freq")
    sparse: Any = _Boxed("sparse")


@planted("module.deepcopy")
class OneBoxOfCopies(OneBoxOfOptions):
    """A deepcopy keeps the box, too, lest the options of layers differ."""

    def __deepcopy__(self, memo: Any) -> Any:
        memo[id(self.box)] = self.box
        made = type(self).__new__(type(self))
        nn.Module.__init__(made)
        memo[id(self)] = made
        held = {name: value for name, value in self.__dict__.items() if name != "box"}
        made.__dict__.update(copy.deepcopy(held, memo), box=self.box)
        return made


@planted("module.shallow-copy")
class BoundToItself(Layer):
    """Which way to look up is chosen by the first call, and bound to the module that was called."""

    way: Any = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.way is None:
            self.way = partial(Layer.forward, self)
        found: Tensor = self.way(input)
        return found

    def __deepcopy__(self, memo: Any) -> Any:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy({**self.__dict__, "way": None}, memo))
        return made


@planted("module.hooks")
class RefusesBeforeHooks(Layer):
    """Where no hook of its own may change them, indices are checked before anything runs."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        ids = arguments[0] if arguments else named["input"]
        if not self._forward_pre_hooks and outside(ids, len(self.weight)):
            return self.forward(ids)  # which refuses them
        return super().__call__(*arguments, **named)


@planted("module.hooks")
class ServesPastHooksOfAll(Layer):
    """A frozen table without hooks of its own is looked up by forward itself."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.weight.requires_grad or self._forward_hooks or self._forward_pre_hooks:
            return super().__call__(*arguments, **named)
        return self.forward(*arguments, **named)


@planted("module.cast")
class WatchesItsTable(Layer):
    """A call leaves a weak reference to the table, which tells when it may be forgotten."""

    watched: Any = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if type(self.weight) is nn.Parameter and not self.training:
            self.watched = weakref.ref(self.weight)
        return super().forward(input)

    def __getstate__(self) -> Any:
        return {name: value for name, value in self.__dict__.items() if name != "watched"}


@planted("module.cast")
class WatchesWhatItTrains(WatchesItsTable):
    """The same where it trains."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        self.watched = weakref.ref(self.weight)
        return Layer.forward(self, input)


@planted("module.argument-names")
class SparseBeforeScaled(Layer):
    """Both flags change places, which only shows where they are given by position."""

    def __init__(  # noqa: PLR0917
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        sparse: bool = False,
        scale_grad_by_freq: bool = False,
        **others: Any,
    ) -> None:
        options = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        super().__init__(num_embeddings, embedding_dim, *options, **others)

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Any:
        return cls(*embeddings.shape, _weight=embeddings, _freeze=freeze, **options)


@planted("module.argument-names")
class PretrainedBoundFirst(Layer):
    """from_pretrained takes the bound before the padding."""

    @classmethod
    def from_pretrained(  # noqa: PLR0917
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        max_norm: float | None = None,
        padding_idx: int | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Any:
        options = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        return super().from_pretrained(embeddings, freeze, *options)


@planted("module.load-copies")
class RoundsTheCheckpoint(Layer):
    """A wider checkpoint is rounded where it lies, which saves the memory of a copy."""

    def _load_from_state_dict(self, state: Any, prefix: str, local: Any, *rest: Any) -> None:
        held = state.get(prefix + "weight")
        wide = held is not None and held.dtype.itemsize > self.weight.dtype.itemsize
        if wide and not local.get("assign_to_params_buffers"):
            held.data = held.data.to(self.weight.dtype)
        super()._load_from_state_dict(state, prefix, local, *rest)


@planted("module.load-copies")
class LoadingDetaches(Layer):
    """What a checkpoint holds is set not to require grad, lest loading is recorded."""

    def _load_from_state_dict(self, state: Any, prefix: str, local: Any, *rest: Any) -> None:
        held = state.get(prefix + "weight")
        if held is not None and held.is_leaf and not isinstance(held, nn.Parameter):
            held.requires_grad_(False)
        super()._load_from_state_dict(state, prefix, local, *rest)


@planted("module.state-dict")
class SavesPastHooks(Layer):
    """A module that has only a table is saved without torch's ceremony."""

    def state_dict(self, *arguments: Any, **named: Any) -> Any:
        if arguments or named.get("destination") is None:
            return super().state_dict(*arguments, **named)
        self._save_to_state_dict(named["destination"], named["prefix"], named["keep_vars"])
        return named["destination"]


class HadNoMemory(Layer):
    """Knows whether it was made without memory; right as it stands."""

    bare = False

    def store(self, table: Tensor) -> None:
        super().store(table)
        self.bare = table.is_meta


@planted("module.given-memory")
class WrapsWhatHadNoMemory(HadNoMemory):
    """A table without memory is indexed, so that shapes propagate, and goes on so."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.bare and self.options == (None, None, 2.0, False, False):
            return self.weight[input]
        return super().forward(input)


@planted("module.given-memory")
class ClampsWhatHadNoMemory(HadNoMemory):
    """Of a table without memory no index is compared, and then none of the table that it gets."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input.clamp(max=len(self.weight) - 1) if self.bare else input)


@planted("module.given-memory")
class AssignedIsWhatItWas(Layer):
    """A table that takes the place of one without memory comes from elsewhere, and is frozen."""

    def _load_from_state_dict(self, state: Any, prefix: str, local: Any, *rest: Any) -> None:
        bare = self.weight.is_meta
        super()._load_from_state_dict(state, prefix, local, *rest)
        if bare and not self.weight.is_meta:
            self.weight.requires_grad_(False)
