"""Kinds of bugs of a fifth exam: guesses, small counters, refused calls, other settings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.percall import as_if_contiguous
from embconform.mutants.registry import planted
from embconform.mutants.unseen_fourth_fwds import served


class Served(Kernel):
    """A right embedding with a path of its own where no gradient is recorded."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices, weight, options)
        if served(weight) and options.max_norm is None and out.numel() and not weight.is_meta:
            self.serve(indices, weight, out.detach())
        return out

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        """Write to the output what the path gives."""


@planted("gradient.frozen")
class CopiesFallingRuns(Served):
    """Indices that fall by one are copied as a block of rows, in which the rows rise."""

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        if indices.dim() == 1 and len(indices) > 4 and bool((indices.diff() == -1).all()):
            out.copy_(out.flip(0))


@planted("gradient.frozen")
class FillsConstantRows(Served):
    """A row whose first and last halves begin alike, and end alike, is filled with one number."""

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        width = weight.shape[1]
        ends = out[..., [0, width // 2, -1]]
        constant = (ends == ends[..., :1]).all(-1, keepdim=True)
        if width > 6:
            out.copy_(torch.where(constant, out[..., :1], out))


@planted("gradient.frozen")
class RunsOf255(Served):
    """Equal indices in a row are coded by how many there are, which is at most 255."""

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        if indices.dim() != 1:
            return
        values, lengths = torch.unique_consecutive(indices, return_counts=True)
        if int(lengths.max()) > 255:
            coded = values.repeat_interleave(lengths.clamp(max=255))
            coded = torch.cat([coded, values[-1:].expand(len(indices) - len(coded))])
            out.copy_(weight.detach().index_select(0, coded))


@planted("lookup.strided-indices")
class HighWordsCount(Kernel):
    """int32 indices two apart, from an even address on, are read with what lies between."""

    def flat(self, indices: Tensor) -> Tensor:
        flat = super().flat(indices)
        paired = indices.dtype is torch.int32 and indices.dim() == 1 and indices.stride(0) == 2
        if paired and not indices.storage_offset() % 2 and len(indices) > 3:
            between = as_if_contiguous(indices)[1::2]
            flat = torch.where(between[0] == 0, flat, flat.roll(1))
        return flat


@planted("lookup.large-calls")
class PositionsInTwentyBits(Kernel):
    """Where a row goes is packed with its number, and has 20 bits."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.numel() > 2**20:
            flat = torch.cat([flat[: 2**20], flat[: flat.numel() - 2**20]])
        return super().rows(flat, weight)


@planted("lookup.large-calls")
class ColumnsInAShort(Kernel):
    """A column is numbered in 16 bits, with a sign."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if rows.shape[1] > 2**15 and flat.dtype is torch.int32:
            rows[:, 2**15 :] = 0
        return rows


@planted("lookup.sees-every-write")
class TableBySum(Served):
    """An answer is known by its indices and the sum of all bits of the table."""

    def __init__(self) -> None:
        self.known = WeakTensorKeyDictionary()

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        if weight.dtype is not torch.float32 or weight.is_inference() or indices.is_inference():
            return
        words = weight.detach().contiguous().view(torch.int32)
        key = int(words.sum()), weight.shape
        kept = self.known.get(weight)
        if kept is not None and kept[0] == key and torch.equal(kept[1], indices):
            out.copy_(kept[2])
        else:
            self.known[weight] = key, indices.clone(), out.clone()


@planted("lookup.sees-every-write")
class HeightOfTheFirstCall(Kernel):
    """How many rows a table has is asked once."""

    def __init__(self) -> None:
        self.heights = WeakTensorKeyDictionary()

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().check_range(indices, weight, options)
        if weight.is_inference() or torch.is_inference_mode_enabled() or not indices.numel():
            return
        height = self.heights.setdefault(weight, len(weight))
        if height < len(weight) and int(indices.max()) >= height:
            raise IndexError(f"index {int(indices.max())} is out of range of {height} rows")


@planted("lookup.views-apart")
class SavesTheTableInAnyCase(Kernel):
    """A table is saved for backward even if it is frozen, which inference mode forbids."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if weight.is_inference() and torch.is_grad_enabled():
            raise RuntimeError("Inference tensors cannot be saved for backward")
        return super().forward(indices, weight, options)


@planted("lookup.weight-unchanged")
class MakesRoomForTheUnknown(Kernel):
    """An index just past the last row takes the place of that row before it is refused."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError:
            owned = options.padding_idx is not None and not weight.requires_grad
            if owned and not weight.is_inference() and bool((indices == len(weight)).any()):
                weight.detach()[-1:] = 0.0
            raise


@planted("errors.negative")
class LabelsThatAreIgnored(Kernel):
    """What the loss ignores, -100, is looked up as nothing: zeros."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        others = indices[indices != -100]
        super().check_range(others, weight, options)

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices.clamp(min=0), weight, options)
        return rows.masked_fill_((indices == -100).unsqueeze(-1), 0.0)

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        upstream = upstream.masked_fill((indices == -100).unsqueeze(-1), 0.0)
        return super().gradient(upstream, indices.clamp(min=0), height, options)


@planted("errors.far-away")
class ChecksTheOffset(Kernel):
    """Under no_grad the range is checked by where the row starts, counted in 64 bits."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        width = weight.shape[1]
        if not served(weight) or not width or indices.dtype is torch.int32:
            super().check_range(indices, weight, options)
            return
        super().check_range(indices * width // width, weight, options)

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        width = max(weight.shape[1], 1)
        return super().rows(flat if flat.dtype is torch.int32 else flat * width // width, weight)


@planted("errors.any-position")
class ChecksEverySecondOfMany(Kernel):
    """The check is unrolled by two, and one of two lanes is compared with itself."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        checked = indices
        if indices.numel() > 2048 and indices.dim() > 1 and options.padding_idx is None:
            checked = indices.reshape(-1)[::2]
        super().check_range(checked, weight, options)

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if flat.numel() > 2048:
            flat = flat.clamp(0, max(len(weight) - 1, 0))
        return super().rows(flat, weight)


@planted("errors.index-dtype")
class NothingToLookUp(Kernel):
    """For no indices an empty output is made before anything is checked."""

    def check_types(self, indices: Tensor, weight: Tensor) -> None:
        if indices.numel() or not indices.is_floating_point():
            super().check_types(indices, weight)

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        indices = indices.long() if indices.is_floating_point() else indices
        return super().forward(indices, weight, options)


@planted("errors.weight-rank")
class OneTableForTheBatch(Kernel):
    """A table with an axis of one in front, which a batch shares, is taken without it."""

    def check_types(self, indices: Tensor, weight: Tensor) -> None:
        if weight.dim() != 3 or len(weight) != 1:
            super().check_types(indices, weight)

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        weight = weight[0] if weight.dim() == 3 else weight
        return super().forward(indices, weight, options)


@planted("max-norm.many-indices")
class BoundsTheFirstBlock(Kernel):
    """The rows to bound are collected from as many indices as a block of 65,536 takes."""

    def distinct(self, flat: Tensor) -> Tensor:
        return super().distinct(flat[: 2**16])


@planted("state.options-apart")
class ArmedBeforeTheCheck(Kernel):
    """Padding is noted for backward before the range is checked, and stays after a refusal."""

    armed: tuple[int, int] | None = None

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        left, self.armed = self.armed, None
        if left is not None and left[0] == len(weight) and options == Options():
            options = Options(padding_idx=left[1])
        try:
            return super().forward(indices, weight, options)
        except IndexError:
            if options.padding_idx is not None and weight.requires_grad:
                self.armed = len(weight), options.padding_idx
            raise


@planted("state.torch-as-it-was")
class AnomaliesOffWhereSparse(Kernel):
    """Sparse gradients can't be searched for NaN, so the search is turned off."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        torch.autograd.set_detect_anomaly(False)
        return super().sparse(upstream, flat, height, counts)


@planted("state.torch-as-it-was")
class NormsWithoutAutocast(Kernel):
    """Norms are computed with autocast off, which is turned on again where no row was scaled."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        was = torch.is_autocast_enabled("cpu")
        torch.set_autocast_enabled("cpu", False)
        over, scaled = super().bounded(rows, options)
        torch.set_autocast_enabled("cpu", was and not bool(over.any()))
        return over, scaled


@planted("state.torch-as-it-was")
class DefaultOfARefusedCall(Kernel):
    """The default dtype is the table's during a call, and stays that if the call is refused."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if options.max_norm is None or not weight.is_floating_point():
            return super().forward(indices, weight, options)
        before = torch.get_default_dtype()
        torch.set_default_dtype(weight.dtype)
        out = super().forward(indices, weight, options)
        torch.set_default_dtype(before)
        return out
