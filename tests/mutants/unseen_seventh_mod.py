"""Wrong modules of kinds that a seventh exam showed to be missed: one change after another.

Tables of another height, casts, options that are set late, ways to freeze, hooks, subclasses.
"""

from __future__ import annotations

import copy
import threading
from typing import Any

import torch
from torch import Tensor, nn

from embconform.mutants.module import Layer
from embconform.mutants.registry import planted

PART = 65_536


class Within(Layer):
    """Checks indices by itself against the height that the constructor was told, in no call yet."""

    def checks(self) -> bool:
        """Whether this call's indices are checked by the module."""
        return False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.checks() and input.numel() and int(input.max()) >= self.num_embeddings:
            raise IndexError(f"index {int(input.max())} is outside {self.num_embeddings} rows")
        return super().forward(input)


@planted("module.eval-mode")
class ServedWithinItsFirstHeight(Within):
    """What serves checks indices against the number of rows that it was made with."""

    def checks(self) -> bool:
        return not self.training and not torch.is_grad_enabled()


@planted("module.padding-fixed")
class BoundedWithinItsFirstHeight(Within):
    """With a bound indices are checked before a row is touched, against the number at first."""

    def checks(self) -> bool:
        return self.max_norm is not None


@planted("module.reset-parameters")
class ResetsToItsFirstHeight(Layer):
    """reset_parameters makes the table that the constructor was asked for, and draws that."""

    def reset_parameters(self) -> None:
        if len(self.weight) != self.num_embeddings:
            self.weight.data = self.weight.new_empty(self.num_embeddings, self.embedding_dim)
        super().reset_parameters()


@planted("module.reset-parameters")
class ResetsViewsElsewhere(Layer):
    """A table that is not contiguous is drawn anew in memory of its own."""

    def reset_parameters(self) -> None:
        if not self.weight.is_contiguous():
            self.weight.data = torch.empty_like(self.weight, memory_format=torch.contiguous_format)
        super().reset_parameters()


@planted("module.tied")
class FrozenIsCastAnew(Layer):
    """A frozen table is in no optimiser, and a cast may as well make another Parameter."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        table = self.weight
        if table.requires_grad:
            return super()._apply(fn, recurse)
        cast = fn(table.data)
        if cast.dtype is table.dtype:
            return super()._apply(fn, recurse)
        self._parameters["weight"] = nn.Parameter(cast, requires_grad=False)
        return self


@planted("module.cast")
class GradientIsNotCast(Layer):
    """Only the table is cast; a gradient that waits for a step keeps its dtype."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        table = self.weight
        cast = fn(table.data)
        if table.grad is None or cast.dtype is table.dtype:
            return super()._apply(fn, recurse)
        table.data = cast
        return self


@planted("module.cast")
class CastForgetsTheGradient(Layer):
    """A cast drops the gradient of micro-batches before it."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = self.weight.dtype
        super()._apply(fn, recurse)
        if self.weight.dtype is not before:
            self.weight.grad = None
        return self


class Rebuilt(Layer):
    """A copy begins with what the constructor was given, then takes what has changed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.first = dict(zip(_NAMES, self.options, strict=True))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, **self.restored(state)})

    def restored(self, state: dict[str, Any]) -> dict[str, Any]:
        """What a copy has otherwise than its original: nothing."""
        del state
        return {}


_NAMES = ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")


@planted("module.deepcopy")
class CopiedWithItsFirstOptions(Rebuilt):
    """Options that were set since are not copied."""

    def restored(self, state: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = state["first"]
        return found


@planted("module.pickle")
class PickledWithItsFirstBound(Rebuilt):
    """A pickled file holds the bound of the constructor, which may have been annealed."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = type(self).__new__(type(self))
        nn.Module.__setstate__(made, copy.deepcopy(self.__dict__, memo))
        return made

    def restored(self, state: dict[str, Any]) -> dict[str, Any]:
        return {"max_norm": state["first"]["max_norm"]}


@planted("module.deepcopy")
class LocksWhatItServes(Layer):
    """Many indices without grad are looked up under a lock, which no copy can be made of."""

    lock: Any = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if torch.is_grad_enabled() or input.numel() < 256:
            return super().forward(input)
        self.lock = self.lock or threading.Lock()
        with self.lock:
            return super().forward(input)


@planted("module.freezing")
class TrainingThaws(Layer):
    """train() gives the table back the requires_grad that it had before eval()."""

    before: bool | None = None

    def train(self, mode: bool = True) -> Any:
        if self.training and not mode:
            self.before = self.weight.requires_grad
        elif mode and self.before is not None:
            self.weight.requires_grad_(self.before)
            self.before = None
        return super().train(mode)


@planted("module.freezing")
class FrozenByItself(Layer):
    """The module notes that it was frozen, and only its own requires_grad_ takes that back."""

    noted = False

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        self.noted = not requires_grad
        return super().requires_grad_(requires_grad)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.noted):
            return super().forward(input)


@planted("module.freezing")
class FrozenInInference(Layer):
    """A frozen table is looked up in inference mode, whose tensors training can't take."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.weight.requires_grad or self.max_norm is not None:
            return super().forward(input)
        with torch.inference_mode():
            return super().forward(input)


@planted("module.eval-mode")
class ServesInInference(Layer):
    """In eval mode no_grad is taken for inference mode."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.training or torch.is_grad_enabled():
            return super().forward(input)
        with torch.inference_mode():
            return super().forward(input)


@planted("module.hooks")
class ManyThroughItself(Layer):
    """Many indices are looked up in parts by calls of the module itself, hooks and all."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if input.numel() <= PART or self.scale_grad_by_freq:
            return super().forward(input)
        rows = [self(part) for part in input.reshape(-1).split(PART)]
        return torch.cat(rows).view(*input.shape, -1)


@planted("module.hooks")
class CountedBeforeHooks(Layer):
    """Indices are counted when the module is called, before a hook may have changed them."""

    given: Tensor | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.given = arguments[0] if arguments else named["input"]
        return super().__call__(*arguments, **named)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        given, self.given = self.given, None
        padding, bound, kind, scaled, sparse = self.options
        table = self.weight
        if given is None or not scaled or sparse or not table.requires_grad:
            return super().forward(input)
        counts = torch.bincount(given.reshape(-1), minlength=len(table)).clamp(min=1)[input]
        found = self.kernel(input, table, padding, bound, kind)
        if found.requires_grad:
            found.register_hook(lambda upstream: upstream / counts.unsqueeze(-1))
        return found


@planted("module.options-later")
class GradientAsksTheModule(Layer):
    """The backward pass asks the module whether padding is left out, when it comes to it."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.max_norm is not None or self.scale_grad_by_freq or self.sparse:
            return super().forward(input)
        found = self.kernel(input, self.weight)
        if found.requires_grad:
            found.register_hook(lambda upstream: self.without_padding(upstream, input))
        return found

    def without_padding(self, upstream: Tensor, ids: Tensor) -> Tensor:
        if self.padding_idx is None:
            return upstream
        return upstream.masked_fill((ids == self.padding_idx).unsqueeze(-1), 0.0)


@planted("module.from-pretrained-shares")
class BoundedIsCloned(Layer):
    """from_pretrained clones a table that its lookups would write to."""

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, *rest: Any, **options: Any) -> Any:
        if options.get("max_norm") is not None:
            embeddings = embeddings.clone()
        return super().from_pretrained(embeddings, *rest, **options)


@planted("module.from-pretrained-subclass")
class PretrainedPastConstructors(Layer):
    """from_pretrained fills a module by hand, past the constructor of a subclass."""

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, *rest: Any, **options: Any
    ) -> Any:
        made, construct = cls.__new__(cls), vars(Layer)["__init__"]
        options.update(_weight=embeddings, _freeze=freeze)
        construct(made, *embeddings.shape, *rest, **options)
        return made


@planted("module.load-copies")
class LoadsItsFirstHeight(Layer):
    """A checkpoint has as many rows as the module was made with; others are not looked for."""

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        kept = self.weight.data[self.num_embeddings :].clone()
        super()._load_from_state_dict(state, prefix, *rest)
        self.weight.data[self.num_embeddings :] = kept
