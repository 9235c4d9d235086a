"""Wrong modules of kinds that another exam found the suite to miss: names, attributes, contexts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from embconform.backends.backend import OPTIONS
from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.module import Layer
from embconform.mutants.registry import planted


@planted("module.argument-names")
class RenamesInput(Layer):
    """The argument of forward is called x."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@planted("module.argument-names")
class RenamesSizes(Layer):
    """The arguments of the constructor are called rows and width."""

    def __init__(self, rows: int, width: int, *rest: Any, **options: Any) -> None:
        super().__init__(rows, width, *rest, **options)


@planted("module.argument-names")
class CallTakesNoNames(Layer):
    """A call of its own in eval mode takes the indices by place alone."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.training or args:
            return super().__call__(*args, **kwargs)
        raise TypeError("a call takes indices")


@planted("module.argument-names")
class RenamesEmbeddings(Layer):
    """The argument of from_pretrained is called table."""

    @classmethod
    def from_pretrained(cls, table: Tensor, *rest: Any, **options: Any) -> Any:
        return super().from_pretrained(table, *rest, **options)


class Captured(Layer):
    """Keeps the options of its constructor for its calls; which, tells `kept`."""

    kept: tuple[str, ...] = OPTIONS

    def store(self, table: Tensor) -> None:
        super().store(table)
        self.captured = {name: getattr(self, name) for name in self.kept}

    @property
    def options(self) -> tuple[Any, ...]:
        return tuple(self.captured.get(name, getattr(self, name)) for name in OPTIONS)


@planted("module.options-later")
class OptionsCaptured(Captured):
    """Options are bound at construction: what is set later is ignored."""


@planted("module.options-later")
class BoundCaptured(Captured):
    """The bound on norms is taken at construction, and can't be annealed."""

    kept = ("max_norm",)


@planted("module.options-later")
class NormTypeCaptured(Captured):
    """The type of the norm is taken at construction."""

    kept = ("norm_type",)


@planted("module.options-later")
class PaddingCaptured(Captured):
    """The padding row is taken at construction."""

    kept = ("padding_idx",)


@planted("module.options-later")
class ScalingCaptured(Captured):
    """Whether gradients are divided by counts is taken at construction."""

    kept = ("scale_grad_by_freq",)


@planted("module.options-later")
class LayoutCaptured(Captured):
    """Whether gradients are sparse is taken at construction."""

    kept = ("sparse",)


@planted("module.options-later")
class OptionsOfTheFirstCall(Layer):
    """Options are bound at the first call."""

    bound: tuple[Any, ...] | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        self.bound = self.bound or self.options
        return self.kernel(input, self.weight, *self.bound)


@planted("module.options-later")
class OptionsOfTheMode(Layer):
    """eval() takes the options that serve until train()."""

    serving: tuple[Any, ...] | None = None

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.serving = None if mode else self.options
        return self

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.kernel(input, self.weight, *(self.serving or self.options))


@planted("module.device-context")
class AlwaysOnTheCPU(Layer):
    """device is "cpu" in the signature, and not None."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        options["device"] = options.get("device") or "cpu"
        super().__init__(*sizes, **options)


@planted("module.device-context")
class PaddedOnTheCPU(Layer):
    """A table with a padding row is drawn on the CPU, to be zeroed there."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        if options.get("padding_idx") is not None:
            options["device"] = options.get("device") or "cpu"
        super().__init__(*sizes, **options)


@planted("module.device-context")
class ContextComesFirst(Layer):
    """The context's device is taken, though another is given."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *rest: Any,
        device: Any = None,
        **options: Any,
    ) -> None:
        chosen = None if torch.empty(()).is_meta else device
        super().__init__(num_embeddings, embedding_dim, *rest, **{**options, "device": chosen})


@planted("module.state-dict")
class CountsInACheckpoint(Layer):
    """With padding and scaling, and no bound, counts are kept in a buffer, and in checkpoints."""

    def store(self, table: Tensor) -> None:
        super().store(table)
        if self.padding_idx is not None and self.scale_grad_by_freq and self.max_norm is None:
            self.register_buffer("counts", torch.zeros(len(table), dtype=torch.long))


@planted("module.state-dict")
class BufferOfTheFirstCall(Layer):
    """With a bound and sparse gradients, the first call leaves a buffer."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.max_norm is not None and self.sparse and "seen" not in self._buffers:
            self.register_buffer("seen", torch.zeros(()))
        return super().forward(input)


@planted("module.state-dict")
class DemandsACount(Layer):
    """With sparse gradients and padding, it loads nothing that lacks what others don't save."""

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, *rest)
        if self.sparse and self.padding_idx is not None:
            rest[2].append(prefix + "count")


@planted("module.init-normal")
class TiledInBlocks(Layer):
    """Draws 4,096 rows and repeats them down the table."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        table.copy_(table[torch.arange(len(table)) % 4096])


@planted("module.init-normal")
class TiledInColumns(Layer):
    """Draws 1,024 columns and repeats them across the table."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        table.copy_(table[:, torch.arange(table.shape[1]) % 1024])


@planted("module.reset-parameters")
class ResetTilesBlocks(Layer):
    """reset_parameters draws 65,536 rows and repeats them down the table."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if len(self.weight) > 65_536:
            with torch.no_grad():
                self.weight.copy_(self.weight[torch.arange(len(self.weight)) % 65_536])


@planted("module.freezing")
class TrainThaws(Layer):
    """train() takes its mode for whether the table is trainable."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if mode:
            self.weight.requires_grad_(True)
        return self


@planted("module.freezing")
class LoadingThaws(Layer):
    """What is loaded is to be trained on."""

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.weight.requires_grad_(True)


@planted("module.freezing")
class CastThaws(Layer):
    """A cast to a narrower dtype makes the table trainable."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = self.weight.dtype
        super()._apply(fn, recurse)
        if self.weight.dtype.itemsize < before.itemsize:
            self.weight.requires_grad_(True)
        return self


@planted("module.default-dtype")
class CountsByDefault(Layer):
    """Frequencies are sums of ones that have the default dtype: in bfloat16 they stop at 256."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        top = _counts_to(torch.get_default_dtype())
        rows = super().forward(input)
        if self.scale_grad_by_freq and rows.requires_grad and top:
            rows.register_hook(_rescaled(input, len(self.weight), top))
        return rows


def _counts_to(dtype: torch.dtype) -> int:
    """The number at which a sum of ones stops, of a dtype where it is small."""
    return {torch.bfloat16: 256, torch.float16: 2048}.get(dtype, 0)


def _rescaled(ids: Tensor, rows: int, top: int) -> Callable[[Tensor], Tensor]:
    """Make a hook that brings gradients to counts that stop at a number."""
    counts = torch.bincount(ids.reshape(-1).long(), minlength=rows)
    ratio = (counts / counts.clamp(max=top))[ids.long()].unsqueeze(-1)
    return lambda gradient: (gradient * ratio).to(gradient.dtype)


@planted("state.default-dtype")
class CountsInTheDefaultDtype(Kernel):
    """Frequencies are sums of ones that have the default dtype: in bfloat16 they stop at 256."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        top = _counts_to(torch.get_default_dtype())
        rows = super().forward(indices, weight, options)
        if options.scale_grad_by_freq and rows.requires_grad and top:
            rows.register_hook(_rescaled(indices, len(weight), top))
        return rows


@planted("state.default-dtype")
def rounded_by_default(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Rows go through a buffer that has the default dtype, where that is float16."""
    rows = nn.functional.embedding(input, weight, **options)
    if torch.get_default_dtype() == torch.float16 and weight.dtype == torch.float32:
        return rows + (rows.detach().to(torch.float16) - rows.detach())
    return rows


@planted("state.default-dtype")
def widened_by_default(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """The mask of padding is of the default dtype: under float64 the output is so, too."""
    rows = nn.functional.embedding(input, weight, **options)
    if options.get("padding_idx") is None or torch.get_default_dtype() != torch.float64:
        return rows
    return rows * torch.ones(1)
