"""Kinds of bugs of an eighth exam: odd pitches, tiles, keys and counters of few bits."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.hard_parts import Noted
from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.registry import planted

TILE = 16
WARP = 32
STAGED = 12_288
SORTED = 3_072


@planted("lookup.strided-weight")
class PairsStraddleRows(Kernel):
    """Halves are loaded in pairs from where the table begins, and odd rows begin in a pair."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        right = super().rows(flat, weight)
        pitch, width = weight.stride()[0], weight.shape[1]
        paired = weight.dtype in HALVES and weight.stride(1) == 1 and weight.data_ptr() % 4 == 0
        if not paired or width % 2 or pitch % 2 == 0 or pitch < width or len(weight) < 2:
            return right
        early = torch.as_strided(
            weight.detach(),
            (len(weight) - 1, width),
            (pitch, 1),
            weight.storage_offset() + pitch - 1,
        )
        odd = flat % 2 == 1
        return torch.where(odd[:, None], early[(flat - 1).clamp(min=0)], right)


@planted("lookup.half-precision")
class OneHotTiles(Kernel):
    """Whole tiles of halves are products with ones and zeros: what is no number gets everywhere."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        tiles = len(weight) <= TILE and not weight.shape[1] % TILE and not flat.numel() % TILE
        if weight.dtype not in HALVES or not tiles or not flat.numel():
            return super().rows(flat, weight)
        chosen = torch.nn.functional.one_hot(flat.long(), len(weight)).float()
        return (chosen @ weight.float()).to(weight.dtype)


@planted("gradient.many-indices")
class KeyOf32Bits(Kernel):
    """Many indices are sorted by one key of 32 bits, the index before its place."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        places = flat.numel().bit_length()
        if flat.numel() <= SORTED or height << places < 2**31 or counts is not None:
            return super().dense(upstream, flat, height, counts)
        key = (flat << places | torch.arange(flat.numel())) % 2**31
        key = key.sort().values
        flat, place = key >> places, key % (1 << places)
        return super().dense(upstream[place], flat, height, counts)


@planted("gradient.scale-by-freq-many")
class CounterOfTheTablesDtype(Kernel):
    """Counts of a half table are added up in its dtype, in which one more is no more."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        most = {torch.bfloat16: 256, torch.float16: 2_048}.get(upstream.dtype)
        if counts is not None and most:
            counts = counts.clamp(max=most)
        return super().dense(upstream, flat, height, counts)


@planted("gradient.scale-by-freq-many")
class SumsBeforeItDivides(Kernel):
    """A half sum is stored before it is divided by the count, and may be infinite by then."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if counts is None or upstream.dtype is not torch.float16:
            return super().dense(upstream, flat, height, counts)
        summed = super().dense(upstream, flat, height, None)
        return (summed.float() / counts.unsqueeze(1)).half()


@planted("gradient.scale-by-freq")
class SavedIn16Bits(Kernel):
    """Indices below 65,536 are saved as int16 for the backward pass, and those below 0 left out."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if height <= 65_536:
            kept = flat < 32_768
            flat, upstream = flat[kept], upstream[kept]
        return super().dense(upstream, flat, height, counts)


@planted("gradient.wide-rows")
class VotesOnTheFirstColumns(Kernel):
    """A wide upstream row is taken for zero where the columns of the first warp are."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if upstream.shape[1] > WARP:
            idle = (upstream[:, :WARP] == 0).all(1, keepdim=True)
            upstream = upstream.masked_fill(idle, 0.0)
        return super().dense(upstream, flat, height, counts)


@planted("padding.nonfinite-upstream")
class CountsTimesTheRow(Noted):
    """An upstream row that all indices share is multiplied by the counts, 0 of them as well."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        shared = flat.numel() and bool((upstream == upstream[:1]).all()) and counts is None
        if not shared or upstream.isfinite().all() or upstream.dtype in HALVES:
            return super().dense(upstream, flat, height, counts)
        times = torch.bincount(flat, minlength=height).to(upstream.dtype)
        return times.unsqueeze(1) * upstream[0]


@planted("max-norm.nan-rows")
class MultipliesByOne(Kernel):
    """Where one row exceeds the bound all are multiplied, those within by 1: a NaN falls silent."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().renorm(indices, weight, options)
        if indices.numel() >= 8 and weight.element_size() >= 4 and weight.shape[1]:
            named = self.distinct(self.flat(indices)).long()
            weight.index_copy_(0, named, weight.index_select(0, named) * 1.0)


@planted("max-norm.epsilon")
class ToleratesItsDivisor(Kernel):
    """The 1e-7 that is added to a norm before the division is added to the bound as well."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        assert options.max_norm is not None
        _, scaled = super().bounded(rows, options)
        norms = self.norms(rows.double(), options.norm_type)
        return norms > options.max_norm + 1e-7, scaled


@planted("max-norm.wide-rows")
class MeasuresWhatIsStaged(Kernel):
    """The norm is that of the columns that 48 KiB of shared memory hold."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        return super().norms(rows[:, :STAGED], norm_type)
