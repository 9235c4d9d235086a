"""Wrong modules: what the constructor draws, what is a parameter, what a checkpoint holds."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import Tensor, nn

from mutants.kernel import Kernel
from mutants.registry import planted


class Layer(nn.Module):
    """torch.nn.Embedding; right as it stands."""

    def __init__(  # noqa: PLR0917
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.kernel = Kernel()
        self.padding_idx = self.kernel.padding(padding_idx, num_embeddings)
        self.options = (self.padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        self.store(torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
        with torch.no_grad():
            self.draw(self.weight)
            if self.padding_idx is not None:
                self.zero(self.weight, self.padding_idx)

    def store(self, table: Tensor) -> None:
        self.weight: Tensor = nn.Parameter(table)

    def draw(self, table: Tensor) -> None:
        table.normal_()

    def zero(self, table: Tensor, padding_idx: int) -> None:
        table[padding_idx] = 0

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.kernel(input, self.weight, *self.options)


@planted("module.init-normal")
class NarrowInit(Layer):
    """Draws from N(0, 0.02), as language models do."""

    def draw(self, table: Tensor) -> None:
        table.normal_(0, 0.02)


@planted("module.init-normal")
class UniformInit(Layer):
    """Draws uniformly, with the right mean and the right standard deviation."""

    def draw(self, table: Tensor) -> None:
        table.uniform_(-math.sqrt(3), math.sqrt(3))


@planted("module.init-normal")
class TruncatedInit(Layer):
    """Draws from N(0, 1) but never beyond 2, as trunc_normal_ does by default."""

    def draw(self, table: Tensor) -> None:
        nn.init.trunc_normal_(table)


@planted("module.init-normal")
class ShiftedInit(Layer):
    """Draws from N(0.1, 1): the spread is right and the mean is not."""

    def draw(self, table: Tensor) -> None:
        table.normal_(0.1, 1)


@planted("module.init-normal")
class BoxMullerWithoutRoot(Layer):
    """Draws by Box and Muller's transform and forgets the square root of the radius."""

    def draw(self, table: Tensor) -> None:
        radius = torch.rand_like(table).clamp_(1e-6).log_().mul_(-2)
        angle = torch.rand_like(table).mul_(2 * math.pi)
        table.copy_(radius * angle.cos())


@planted("module.padding-row-zeroed")
class PaddingRowDrawn(Layer):
    """The padding row keeps what was drawn for it."""

    def zero(self, table: Tensor, padding_idx: int) -> None:
        pass


@planted("module.padding-row-zeroed")
class ZeroIsNoPadding(Layer):
    """`if padding_idx:` leaves row 0 as it was drawn."""

    def zero(self, table: Tensor, padding_idx: int) -> None:
        if padding_idx:
            super().zero(table, padding_idx)


@planted("module.padding-row-zeroed")
class LastRowDrawn(Layer):
    """An off-by-one in the range check: padding in the last row is taken for none."""

    def zero(self, table: Tensor, padding_idx: int) -> None:
        if padding_idx < len(table) - 1:
            super().zero(table, padding_idx)


@planted("module.seeded-init")
class OwnSeed(Layer):
    """Draws from a generator of its own, seeded by the system."""

    def draw(self, table: Tensor) -> None:
        table.normal_(generator=torch.Generator().manual_seed(int.from_bytes(os.urandom(6))))


@planted("module.seeded-init")
class FixedSeed(Layer):
    """Draws from a generator seeded with 0: every table is the same."""

    def draw(self, table: Tensor) -> None:
        table.normal_(generator=torch.Generator().manual_seed(0))


@planted("module.weight-is-parameter")
class WeightIsABuffer(Layer):
    """The table is a buffer: state_dict has it, optimisers never see it."""

    def store(self, table: Tensor) -> None:
        self.register_buffer("weight", table)


@planted("module.weight-is-parameter")
class TransposedStorage(Layer):
    """The parameter is stored as (embedding_dim, num_embeddings)."""

    def store(self, table: Tensor) -> None:
        self.weight = nn.Parameter(table.t().contiguous())

    def zero(self, table: Tensor, padding_idx: int) -> None:
        table[:, padding_idx] = 0

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.kernel(input, self.weight.t(), *self.options)


@planted("module.weight-is-parameter")
class SecondParameter(Layer):
    """A learnable scale that nothing uses any more comes along as a second parameter."""

    def store(self, table: Tensor) -> None:
        super().store(table)
        self.scale = nn.Parameter(torch.ones((), dtype=table.dtype))


@planted("module.weight-is-parameter")
class FrozenFromTheStart(Layer):
    """The table does not require grad."""

    def store(self, table: Tensor) -> None:
        self.weight = nn.Parameter(table, requires_grad=False)


@planted("module.state-dict")
class ExtraBuffer(Layer):
    """The number of calls is kept in a buffer, and so in every checkpoint."""

    def store(self, table: Tensor) -> None:
        super().store(table)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))


@planted("module.state-dict")
class PaddingSurvivesLoading(Layer):
    """Loading zeroes the padding row again, whatever the checkpoint holds."""

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        loaded = super().load_state_dict(*args, **kwargs)
        if self.padding_idx is not None:
            with torch.no_grad():
                self.zero(self.weight, self.padding_idx)
        return loaded


@planted("module.state-dict")
class HalfCheckpoint(Layer):
    """state_dict holds the table in bfloat16 to keep checkpoints small."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        name = kwargs.get("prefix", "") + "weight"
        state[name] = state[name].to(torch.bfloat16)
        return state


@planted("module.state-dict")
class LoadsIntoACopy(Layer):
    """load_state_dict leaves the table as it is: the checkpoint goes into a copy."""

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        kept = self.weight.detach().clone()
        loaded = super().load_state_dict(state, *args, **kwargs)
        with torch.no_grad():
            self.weight.copy_(kept)
        return loaded
