"""The founding document's trainable layer, built wrongly."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import Tensor, nn

from embconform.mutants.registry import planted
from embconform.reference.textbook import Embedding, embedding


@planted("module.init-scaled-normal", profile="textbook")
class NotScaled(Embedding):
    """The factor 1/sqrt(d) is forgotten."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.normal_()


@planted("module.init-scaled-normal", profile="textbook")
class ScaledByTheVocabulary(Embedding):
    """The factor is 1/sqrt of the wrong side of the table."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.normal_().mul_(max(self.num_embeddings, 1) ** -0.5)


@planted("module.init-scaled-normal", profile="textbook")
class LikeWord2Vec(Embedding):
    """Draws as word2vec's C code does, uniformly from -0.5/d to 0.5/d."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        edge = 0.5 / max(self.embedding_dim, 1)
        self.weight.uniform_(-edge, edge)


@planted("module.init-scaled-normal", profile="textbook")
class UniformOfTheSameSpread(Embedding):
    """Draws uniformly, with the right standard deviation."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        edge = math.sqrt(3 / max(self.embedding_dim, 1))
        self.weight.uniform_(-edge, edge)


@planted("module.init-scaled-normal", profile="textbook")
class LargeTablesNotScaled(Embedding):
    """Tables of more than a thousand rows are drawn in blocks, and the blocks are not scaled."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.num_embeddings > 1000:
            self.weight.normal_()


@planted("module.reset-parameters", profile="textbook")
class ScaledTwice(Embedding):
    """reset_parameters of a used table scales it by 1/sqrt(d) twice."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        used = hasattr(self, "used")
        super().reset_parameters()
        self.used = True
        if used:
            self.weight.mul_(max(self.embedding_dim, 1) ** -0.5)


@planted("module.padding-row-drawn", profile="textbook")
class PaddingRowZeroedAtLast(Embedding):
    """The constructor ends by zeroing the padding row, out of habit."""

    def __init__(  # noqa: PLR0917
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, dtype=dtype
        )
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0.0


@planted("module.padding-row-drawn", profile="textbook")
class PaddingRowZeroed(Embedding):
    """The padding row is zeroed at the start, as torch.nn.Embedding's is."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.padding_idx is not None:
            self.weight[self.padding_idx] = 0.0


@planted("module.weight-is-parameter", profile="textbook")
class ScaledAfterwards(Embedding):
    """Parameter(normal) * factor is no Parameter any more: nothing is left to learn."""

    def reset_parameters(self) -> None:
        drawn = torch.randn_like(self.weight)
        del self.weight
        self.weight = nn.Parameter(drawn).detach() * max(self.embedding_dim, 1) ** -0.5


@planted("module.seeded-init", profile="textbook")
class OwnSeedTextbook(Embedding):
    """Draws from a generator of its own, seeded by the system."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        source = torch.Generator().manual_seed(int.from_bytes(os.urandom(6)))
        self.weight.normal_(generator=source).mul_(max(self.embedding_dim, 1) ** -0.5)


@planted("module.state-dict", profile="textbook")
class MaskInTheCheckpoint(Embedding):
    """The padding mask of the rows is a buffer and lands in every checkpoint."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        rows = torch.arange(self.num_embeddings)
        self.register_buffer("mask", rows == (-1 if self.padding_idx is None else self.padding_idx))


@planted("training.padding-row-unmoved", profile="textbook")
class ReusesItsMasks(Embedding):
    """The mask is made at the first call with indices of a shape and serves all later ones."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.masks: dict[torch.Size, Tensor] = {}

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.padding_idx is None or self.max_norm is not None:
            return super().forward(input)
        mask = self.masks.setdefault(input.shape, (input == self.padding_idx).unsqueeze(-1))
        return embedding(input, self.weight).masked_fill(mask, 0.0)
