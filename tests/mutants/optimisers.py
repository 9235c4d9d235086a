"""Embeddings that go wrong once an optimiser has written the table, some in ways SGD hides."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Options
from embconform.mutants.percall import PerTable
from embconform.mutants.registry import planted


class Stepped(PerTable):
    """A right embedding that counts the writes to a table between its calls on it."""

    def __init__(self) -> None:
        super().__init__()
        self.versions = WeakTensorKeyDictionary()
        self.writes = 0

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        if weight.is_inference() or options.max_norm is not None:
            self.writes = 0
            return
        self.writes = weight._version - self.versions.get(weight, weight._version)
        self.versions[weight] = weight._version


@planted("training.sgd-step")
class MasterWeights(Stepped):
    """A float64 table that moves is taken for the master copy of a loss-scaled run."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        right = super().gradient(upstream, indices, height, options)
        return right / 2 if self.writes and right.dtype == torch.float64 else right


class Leaky(Stepped):
    """A table that has moved gets a trace of gradient in its last row, which the batch lacks."""

    trace = 0.0

    def leaks(self, flat: Tensor, height: int) -> bool:
        return bool(self.writes and flat.numel() and int(flat.max()) < height - 1)


@planted("training.adagrad-step")
class TraceInTheLastRow(Leaky):
    """A sentinel of 1e-16 stays in the last row: Adagrad's first step divides by its size."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if self.leaks(flat, height) and right.dtype == torch.float32:
            right[-1] = 1e-16
        return right


@planted("sparse.optimiser-steps")
class TraceInTheEntries(Leaky):
    """The entries end with a sentinel of 1e-16 in the last row, which Adagrad magnifies."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.leaks(flat, height) and upstream.dtype == torch.float32:
            flat = torch.cat([flat, flat.new_tensor([height - 1])])
            upstream = torch.cat([upstream, torch.full_like(upstream[:1], 1e-16)])
        return super().sparse(upstream, flat, height, counts)


@planted("training.sparse-adam-step")
class DenseInDisguise(Stepped):
    """The sparse gradient of a small table names every row: SparseAdam becomes Adam."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.writes and height <= 64:
            rest = torch.arange(height, device=flat.device)
            flat = torch.cat([flat, rest])
            upstream = torch.cat([upstream, upstream.new_zeros(height, upstream.shape[1])])
        return super().sparse(upstream, flat, height, counts)


@planted("training.adamw-step")
class DecayUndone(Stepped):
    """A shadow of the table restores the rows that no batch has named: weight decay is undone."""

    def __init__(self) -> None:
        super().__init__()
        self.shadows = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        plain = not weight.is_inference() and weight.dim() == 2 and options.max_norm is None
        if plain and weight.requires_grad:
            moved = weight._version != self.versions.get(weight, weight._version)
            shadow, named = self.shadows.setdefault(
                weight, (weight.detach().clone(), torch.zeros(len(weight), dtype=torch.bool))
            )
            if moved and shadow.shape == weight.shape:
                weight.data[~named] = shadow[~named]
            if indices.numel() and 0 <= int(indices.min()) <= int(indices.max()) < len(named):
                named[indices.reshape(-1).long()] = True
        return super().forward(indices, weight, options)


@planted("training.adamw-step")
class TwoWritesAreAReload(Stepped):
    """Two writes between passes are taken for a reload: the next gradient is dropped as stale."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        right = super().gradient(upstream, indices, height, options)
        return right * 0 if self.writes == 2 else right


@planted("training.padding-row-decays")
class TraceInThePadding(Stepped):
    """A trace of 1e-10 reaches the padding row of a moving table: Adagrad makes it half a step."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        right = super().gradient(upstream, indices, height, options)
        if self.writes and options.padding_idx is not None and right.dtype == torch.float32:
            right = right.to_dense() if right.is_sparse else right
            right[options.padding_idx] = 1e-10
        return right.to_sparse(1) if options.sparse and not right.is_sparse else right


@planted("training.sgd-step")
class ZeroedGradientIsReplaced(Stepped):
    """A float64 gradient of zeros counts as none: the pass after zero_grad() is lost."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        right = super().gradient(upstream, indices, height, options)
        held = self.table.grad
        zeroed = held is not None and not held.is_sparse and not bool(held.any())
        return right * 0 if zeroed and self.writes and right.dtype == torch.float64 else right
