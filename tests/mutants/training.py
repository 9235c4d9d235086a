"""Embeddings that go wrong while a table is trained, and look right in any single call."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Options
from embconform.mutants.percall import PerTable, rank_among_equals
from embconform.mutants.registry import planted


@planted("training.skip-gram")
class DropsEverySixteenth(PerTable):
    """Gradients of a table are flushed every 16 passes, and the one that triggers it is lost."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        right = super().gradient(upstream, indices, height, options)
        return right if self.next_pass() % 16 else torch.zeros_like(right)


@planted("training.skip-gram")
class KeepsVelocity(PerTable):
    """A tenth of the step before is added to a gradient once an optimiser has written the table."""

    def __init__(self) -> None:
        super().__init__()
        self.before = WeakTensorKeyDictionary()

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if self.table.is_inference():
            return right
        version, velocity = self.before.get(self.table, (-1, right))
        moved = version not in (-1, self.table._version)
        self.before[self.table] = self.table._version, right
        return right + 0.1 * velocity if moved else right


@planted("training.skip-gram")
class ZipfHead(PerTable):
    """In vocabularies of over 1000 words the head of Zipf's law has a cache of 16 terms a row."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if height > 1000:
            cached = rank_among_equals(flat) < 16
            upstream, flat = upstream[cached], flat[cached]
        return super().dense(upstream, flat, height, counts)


@planted("training.skip-gram")
class FadesAway(PerTable):
    """From the 20th pass over a table on, each gradient is a hundredth weaker than the last."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        faded = 0.99 ** max(self.next_pass() - 20, 0)
        return super().gradient(upstream * faded, indices, height, options)


@planted("training.padding-row-unmoved")
class StalePaddingMask(PerTable):
    """The padding mask of a table's first batch is kept for all later batches of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.masks = WeakTensorKeyDictionary()

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None:
            return flat, upstream
        masks = self.masks.setdefault(self.table, {})
        kept = masks.setdefault(flat.numel(), flat != options.padding_idx)
        return flat[kept], upstream[kept]


@planted("training.padding-row-unmoved")
class PaddingThaws(PerTable):
    """The padding row is masked during a warm-up of ten passes only."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if self.next_pass() > 10:
            return flat, upstream
        return super().without_padding(flat, upstream, options)


@planted("training.padding-row-unmoved")
class PaddingSeeps(PerTable):
    """After ten passes a 10,000th of the padding gradient seeps through: no other row shows it."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None or self.next_pass() <= 10:
            return super().without_padding(flat, upstream, options)
        padded = (flat == options.padding_idx).unsqueeze(1)
        return flat, torch.where(padded, 1e-4 * upstream, upstream)


@planted("training.loss-falls")
class TurnsAround(PerTable):
    """A pass counter of four bits with a sign: from the 9th pass on the gradient is negated.

    training.skip-gram catches it as well, and must: a table that the oracle finds right has the
    oracle's losses, which fall.
    """

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        sign = 1 if self.next_pass() <= 8 else -1
        return super().gradient(sign * upstream, indices, height, options)
