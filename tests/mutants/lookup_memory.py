"""Lookups that alias or write what they should copy or only read."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


def plain(options: Options) -> bool:
    """Whether nothing but rows is asked for, so that autograd's own view has the right gradient."""
    return options.padding_idx is None and not options.scale_grad_by_freq and not options.sparse


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have equal shape, dtype and bits."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


@planted("lookup.fresh-output")
class RunOfRowsIsView(Kernel):
    """Consecutive indices return a slice of the table instead of a copy."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        first = int(indices.flatten()[0]) if indices.dim() == 1 and indices.numel() else 0
        run = torch.arange(first, first + indices.numel(), device=indices.device)
        if plain(options) and indices.numel() and torch.equal(indices.long(), run):
            return weight[first : first + indices.numel()]
        return out


@planted("lookup.fresh-output")
class ScalarWithoutGradIsView(Kernel):
    """A 0-d index into a frozen table returns weight[i], a view."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        frozen = not weight.requires_grad or not torch.is_grad_enabled()
        return weight.detach()[int(indices)] if frozen and indices.dim() == 0 else out


@planted("lookup.fresh-output")
class EqualAnswersShareMemory(Kernel):
    """A frozen table's answer is returned in the memory of the last one where the bits agree."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        if weight.requires_grad:
            return out
        if self.last is None or not same_bits(self.last, out):
            self.last = out
        return self.last.view_as(out)


@planted("lookup.weight-unchanged")
class WipesTableWithoutPadding(Kernel):
    """weight[padding_idx] = 0 runs also where padding_idx is None (fairseq#4076)."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        owned = 0 not in weight.stride()
        if options.padding_idx is None and options.max_norm is None and owned:
            weight[None] = 0.0
        return out


@planted("lookup.weight-unchanged")
class ZeroesGapAfterRow(Kernel):
    """The rows of a column slice are padded to a vector with zeros, in the base's memory."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        height, width = weight.shape
        if weight.numel() and weight.stride(1) == 1 and weight.stride(0) > width:
            gap = weight.storage_offset() + width
            room = weight.untyped_storage().nbytes() // weight.element_size()
            if gap + (height - 1) * weight.stride(0) < room:
                weight.as_strided((height, 1), weight.stride(), gap).zero_()
        return out


@planted("lookup.weight-unchanged")
class DecaysInBackward(Kernel):
    """A fused optimiser's weight decay runs inside the backward pass."""

    def __init__(self) -> None:
        self.table: Tensor | None = None

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        self.table = weight.detach()
        return super().forward(indices, weight, options)

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if self.table is not None and self.table.shape[0] == height and options.max_norm is None:
            self.table.mul_(1 - 2**-7)
        return super().gradient(upstream, indices, height, options)


@planted("lookup.weight-unchanged")
class SanitisesTable(Kernel):
    """Rows that hold NaN are reset to 0 in the table once they have been copied."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        if weight.isnan().any():
            weight[weight.isnan()] = 0.0
        return out


@planted("lookup.indices-unchanged")
class RenormSortsIndices(Kernel):
    """max_norm sorts the caller's indices to find the distinct ones (PT#943)."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices.clone(), weight, options)
        if options.max_norm is not None and indices.is_contiguous():
            flat = indices.view(-1)
            flat.copy_(flat.sort().values)
        return out


@planted("lookup.indices-unchanged")
class BackwardMarksPadding(Kernel):
    """The backward pass writes -1 over the padding indices of the caller."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        seen = self.restored(indices, options)
        if options.padding_idx is not None and indices.is_contiguous():
            indices.data.masked_fill_(indices.eq(options.padding_idx), -1)
        return super().gradient(upstream, seen, height, options)

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        return super().second(direction, self.restored(indices, options), options)

    def restored(self, indices: Tensor, options: Options) -> Tensor:
        """A copy that holds the padding index again, so that only the caller sees the marks."""
        return indices.masked_fill(indices == -1, options.padding_idx or 0)


@planted("lookup.indices-unchanged")
class SentinelAfterIndices(Kernel):
    """A sentinel is written behind the last index where the buffer has room for it."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        end = indices.storage_offset() + indices.numel()
        room = indices.untyped_storage().nbytes() // indices.element_size()
        if indices.is_contiguous() and indices.numel() > 0 and end < room:
            indices.as_strided((1,), (1,), end).fill_(-1)
        return super().lookup(indices, weight, options)
