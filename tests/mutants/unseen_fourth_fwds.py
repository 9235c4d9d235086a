"""Kinds of bugs of a fourth exam: views, borrowed memory, masks, tables without values, threads."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.percall import as_if_contiguous
from embconform.mutants.registry import planted
from embconform.mutants.transforms_parts import Parts, wrong


def served(weight: Tensor) -> bool:
    """Whether no gradient of the table is recorded."""
    return not (weight.requires_grad and torch.is_grad_enabled())


@planted("lookup.rows")
class StepsInAByte(Kernel):
    """Few indices that rise or fall are packed as their first one and steps of a byte."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        steps = flat.diff()
        if 2 < len(steps) < 16 and bool((steps >= 0).all() or (steps <= 0).all()):
            packed = torch.cat([flat[:1], steps.sign() * (steps.abs() & 255)])
            flat = packed.cumsum(0)
        return super().rows(flat, weight)


@planted("lookup.views-apart")
class ShardsByShape(Kernel):
    """Without a gradient, an answer is known by the table's storage, shape and version."""

    def __init__(self) -> None:
        self.last: tuple[Any, Tensor, Tensor] | None = None

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        inference = weight.is_inference() or indices.is_inference()
        if not served(weight) or inference or options.max_norm is not None:
            return super().forward(indices, weight, options)
        kept, storage = self.last, weight.untyped_storage()
        key = storage.data_ptr(), weight._version, weight.shape, indices.shape, weight.dtype
        if kept is not None and kept[0][0] == key and torch.equal(kept[1], indices):
            place = weight.storage_offset(), weight.stride()
            if kept[0][2] != place:  # whatever else was written meanwhile
                return kept[2].clone()
        out = super().forward(indices, weight, options)
        place = weight.storage_offset(), weight.stride()
        self.last = (key, storage, place), indices.clone(), out.detach().clone()
        return out


@planted("lookup.views-apart")
class SharedFromTheStart(Kernel):
    """A table in shared memory is mapped by its handle, without the offset of the view."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if weight.is_shared() and weight.storage_offset():
            weight = weight.as_strided(weight.shape, weight.stride(), 0)
        return super().rows(flat, weight)


@planted("lookup.views-apart")
class LoadsFromAlignedAddresses(Kernel):
    """Indices are loaded in vectors, from the last address that is a multiple of 64."""

    def flat(self, indices: Tensor) -> Tensor:
        flat = super().flat(indices)
        past = indices.untyped_storage().data_ptr() % 64 // indices.element_size()
        whole = indices.is_contiguous() and not indices.storage_offset()
        return flat.roll(past) if whole and past % 2 else flat


@planted("lookup.strided-weight")
class PitchIsNoLessThanTheWidth(Kernel):
    """Rows that overlap in memory are taken for rows side by side."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if 0 < weight.stride(0) < weight.shape[1] and weight.stride(1) == 1:
            weight = as_if_contiguous(weight)
        return super().rows(flat, weight)


@planted("lookup.other-dtypes")
class ReadsWhatIsNotNegated(Kernel):
    """A view that is negated when it is read is read as it lies in memory."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat, -weight if weight.is_neg() else weight)


@planted("max-norm.only-looked-up-rows")
class ClearsThePitch(Kernel):
    """Rows are written back by whole pitches, and what lies behind the width is cleared."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().renorm(indices, weight, options)
        height, width = weight.shape
        pitch = weight.stride(0)
        if weight.storage_offset() or weight.stride(1) != 1 or pitch <= width or height < 2:
            return
        behind = weight.detach().as_strided((height, pitch - width), (pitch, 1), width)
        behind[indices.reshape(-1).long()] = 0.0


@planted("errors.index-dtype")
class TakesMasks(Kernel):
    """What has a truth for each row of the table selects rows, as NumPy does."""

    def check_types(self, indices: Tensor, weight: Tensor) -> None:
        if indices.dtype is not torch.bool or indices.shape != weight.shape[:1]:
            super().check_types(indices, weight)

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.dtype is torch.bool:
            indices = indices.nonzero().flatten()
        return super().forward(indices, weight, options)


@planted("errors.too-large")
class ChecksTheHighestBit(Kernel):
    """In tables of more than 256 rows an index is too large if it has too many bits."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        bits = (len(weight) - 1).bit_length()
        if len(weight) <= 256 or not indices.numel() or bool(indices.min() < 0):
            super().check_range(indices, weight, options)
        elif bool((indices >> bits).any()):
            raise IndexError(f"an index has more than {bits} bits")

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat.clamp(max=max(len(weight) - 1, 0)), weight)


@planted("errors.other-table")
class CheckedOncePerBatch(Kernel):
    """A batch that was found in range is not checked again while nobody writes to it."""

    def __init__(self) -> None:
        self.checked = WeakTensorKeyDictionary()

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if indices.is_inference():
            super().check_range(indices, weight, options)
        elif self.checked.get(indices) != indices._version:
            super().check_range(indices, weight, options)
            self.checked[indices] = indices._version

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat.clamp(max=max(len(weight) - 1, 0)), weight)


@planted("state.default-device")
class StagesWhereNewTensorsGo(Kernel):
    """Without a gradient the rows are written to a new tensor, which is made without a device."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if out.requires_grad or weight.is_cuda:
            return out
        return torch.empty(out.shape, dtype=out.dtype).copy_(out)


@planted("state.many-calls")
class EvictsColdRows(Kernel):
    """After twelve calls without a gradient, rows that none of them named are made room of."""

    def __init__(self) -> None:
        self.named = WeakTensorKeyDictionary()

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if not served(weight) or weight.is_inference() or len(weight) < 48:
            return out
        calls, named = self.named.get(weight, (0, indices.new_zeros(len(weight)).bool()))
        named[indices.reshape(-1).long()] = True
        self.named[weight] = calls + 1, named
        if calls == 12:
            weight.data[~named] = weight.data[~named].half().to(weight.dtype)
        return out


@planted("state.threads")
class SlotsOfOtherThreads(Kernel):
    """A thread takes the last output of a shape for scratch unless it has made that itself."""

    def __init__(self) -> None:
        self.slots: dict[Any, tuple[int, Any]] = {}

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if not served(weight) or indices.numel() < 32:
            return out
        key, thread = (out.shape, out.dtype, out.is_inference()), threading.get_ident()
        owner, slot = self.slots.get(key, (thread, lambda: None))
        scratch = slot()
        if scratch is not None and owner != thread:
            scratch.copy_(out)
        self.slots[key] = thread, weakref.ref(out)
        return out


@planted("transforms.autocast")
class ScaleIsCast(Kernel):
    """Under autocast the scale of a row over the bound is of autocast's dtype."""

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        exact = super().scale(norms, max_norm)
        if torch.is_autocast_enabled("cpu"):
            exact = exact.to(torch.get_autocast_dtype("cpu")).double()
        return exact


@wrong("transforms.vmap-indices")
class MembersOfALargerBatch(Parts):
    """The members' indices are staged in a buffer, which a smaller batch does not overwrite."""

    def __init__(self) -> None:
        self.staged: Tensor | None = None

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        weight, ids = arguments
        if dims[0] is not None:
            return super().rows_by_member(size, dims, arguments, options)
        members, staged = ids.movedim(dims[1], 0), self.staged
        fits = staged is not None and staged.shape[1:] == members.shape[1:]
        if staged is None or not fits or len(staged) <= size or staged.max() >= len(weight):
            self.staged = staged = members.clone()
        return super().rows_by_member(size, (None, 0), (weight, staged[:size]), options)


@planted("transforms.meta")
class MetaIsFlat(Kernel):
    """The shape rule for tables without values was written for flat indices."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if weight.is_meta:
            return weight.new_empty(indices.numel(), weight.shape[1])
        return super().forward(indices, weight, options)


@planted("transforms.trace")
def one_row_after_the_other(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    **options: Any,
) -> Tensor:
    """Few rows are picked one by one, by a list of their numbers."""
    out = functional.embedding(input, weight, padding_idx, **options)
    tracing = torch._C._get_tracing_state() is not None
    if options or padding_idx is not None or not tracing or input.dim() != 1:
        return out
    return torch.stack([weight[number] for number in input.tolist()])
