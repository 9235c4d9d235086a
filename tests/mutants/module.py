"""Wrong modules: what the constructor draws, what is a parameter, what a checkpoint holds."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from embconform.mutants.kernel import Kernel
from embconform.mutants.registry import planted


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
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.kernel = Kernel()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = self.checked(padding_idx)
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        if _weight is None:
            self.store(torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
            self.fill()
        else:
            self.store(self.fitting(_weight))
        if _freeze:
            self.weight.requires_grad_(False)

    @property
    def options(self) -> tuple[int | None, float | None, float, bool, bool]:
        own = (self.padding_idx, self.max_norm, self.norm_type)
        return (*own, self.scale_grad_by_freq, self.sparse)

    def checked(self, padding_idx: int | None) -> int | None:
        return self.kernel.padding(padding_idx, self.num_embeddings)

    def fitting(self, table: Tensor) -> Tensor:
        if table.shape != (self.num_embeddings, self.embedding_dim):
            raise ValueError(f"a table of shape {tuple(table.shape)} does not fit")
        return table

    def store(self, table: Tensor) -> None:
        self.weight: Tensor = nn.Parameter(table)

    def fill(self) -> None:
        with torch.no_grad():
            self.draw(self.weight)
            if self.padding_idx is not None:
                self.zero(self.weight, self.padding_idx)

    def reset_parameters(self) -> None:
        self.fill()

    def draw(self, table: Tensor) -> None:
        table.normal_()

    def zero(self, table: Tensor, padding_idx: int) -> None:
        table[padding_idx] = 0

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.kernel(input, self.weight, *self.options)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"

    @classmethod
    def from_pretrained(  # noqa: PLR0917
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Any:
        rows, width = embeddings.shape
        options = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        return cls(rows, width, *options, _weight=embeddings, _freeze=freeze)


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


@planted("module.init-normal")
class TiledInit(Layer):
    """Draws 64 rows and tiles them over the table."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        table.copy_(table[torch.arange(len(table)) % 64])


@planted("module.init-normal")
class AntitheticInit(Layer):
    """The second half of the table is the first half negated, to halve the draws."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        half = len(table) // 2
        table[half : 2 * half] = -table[:half]


@planted("module.init-normal")
class SharedOffset(Layer):
    """The values of a row share an offset: each is N(0, 1), together they are not independent."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        table.mul_(0.8).add_(torch.randn(len(table), 1), alpha=0.6)


@planted("module.init-normal")
class NoisyNeighbours(Layer):
    """A recurrence draws the rows: each has a tenth of the one before in it."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        table[1:] = 0.995 * table[1:] + 0.1 * table[:-1].clone()


@planted("module.init-normal")
class LastRowLeftOut(Layer):
    """Draws all rows but the last, which keeps what was in its memory."""

    def draw(self, table: Tensor) -> None:
        table.fill_(1e-3)
        table[:-1].normal_()


@planted("module.init-normal")
class OddWidthScaled(Layer):
    """Pads odd widths by a column before it scales: they come out 2 % too narrow."""

    def draw(self, table: Tensor) -> None:
        super().draw(table)
        if table.shape[1] % 2:
            table.mul_(0.96)


@planted("module.init-normal")
class RepeatsItsDraws(Layer):
    """Draws a hundred thousand values and goes round in them."""

    def draw(self, table: Tensor) -> None:
        most = min(table.numel(), 100_000)
        table.copy_(torch.randn(most)[torch.arange(table.numel()) % max(most, 1)].view_as(table))


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


@planted("module.weight-is-parameter")
class HiddenParameter(SecondParameter):
    """The second parameter is kept out of checkpoints, and in every optimiser."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        del state[kwargs.get("prefix", "") + "scale"]
        return state

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        return super().load_state_dict({**state, "scale": self.scale}, *args, **kwargs)


@planted("module.weight-is-parameter")
class ListsItsScratch(Layer):
    """Memory that is kept for later calls is named among the parameters."""

    def store(self, table: Tensor) -> None:
        super().store(table)
        self.scratch = [nn.Parameter(torch.zeros(()))]

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        yield from super().named_parameters(prefix, recurse, remove_duplicate)
        yield prefix + "scratch", self.scratch[0]


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
