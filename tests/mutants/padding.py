"""padding_idx done wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.registry import planted


class ZeroesOutput(Kernel):
    """Returns zeros at padding_idx, as torch 1.8.0 did, where a condition holds."""

    def applies(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return True

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        if options.padding_idx is None or not self.applies(indices, weight, options):
            return out
        return out.masked_fill((indices == options.padding_idx).unsqueeze(-1), 0.0)


@planted("padding.row-returned")
class OutputZeroAtPadding(ZeroesOutput):
    """The output is forced to 0 at padding_idx (PT#46585)."""


@planted("padding.row-returned")
class FrozenOutputZeroAtPadding(ZeroesOutput):
    """The inference path forces the output to 0 at padding_idx, the training path does not."""

    def applies(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return not weight.requires_grad


@planted("padding.row-returned")
class BoundedOutputZeroAtPadding(ZeroesOutput):
    """The fused path for max_norm masks its output at the last row."""

    def applies(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return options.max_norm is not None and options.padding_idx == weight.shape[0] - 1


@planted("padding.gradient-is-zero")
class PaddingInTwoDimensions(Kernel):
    """Padding is masked for 1-D indices only (PT#103023)."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if indices.dim() > 1:
            options = Options(scale_grad_by_freq=options.scale_grad_by_freq, sparse=options.sparse)
        return super().gradient(upstream, indices, height, options)


@planted("padding.gradient-is-zero")
class MasksFirstPadding(Kernel):
    """Only the first padding index is left out."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None:
            return flat, upstream
        here = flat == options.padding_idx
        kept = ~(here & (here.cumsum(0) == 1))
        return flat[kept], upstream[kept]


@planted("padding.gradient-is-zero")
class PaddingForgottenInHalf(Kernel):
    """The float32 accumulator of half tables is filled without the mask."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if upstream.dtype in HALVES and not options.sparse:
            return flat, upstream
        return super().without_padding(flat, upstream, options)


@planted("padding.gradient-is-zero")
class PaddingForgottenUnderMaxNorm(Kernel):
    """The path for max_norm does not pass padding_idx on to the backward pass."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.max_norm is not None:
            return flat, upstream
        return super().without_padding(flat, upstream, options)


@planted("padding.nonfinite-upstream")
class MultipliesByMask(Kernel):
    """The upstream gradient is multiplied by a mask: 0 * inf is NaN."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None or options.sparse:
            return super().without_padding(flat, upstream, options)
        return flat, upstream * (flat != options.padding_idx).unsqueeze(1).to(upstream.dtype)


@planted("padding.nonfinite-upstream")
class MultipliesPaddingRow(Kernel):
    """The padding row of the finished gradient is multiplied by 0."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if options.padding_idx is None or options.sparse or not height:
            return super().gradient(upstream, indices, height, options)
        whole = Options(scale_grad_by_freq=options.scale_grad_by_freq)
        summed = super().gradient(upstream, indices, height, whole)
        summed[options.padding_idx] *= 0.0
        summed[options.padding_idx] += 0.0
        return summed


@planted("padding.zero-is-an-index")
class ZeroMeansNoPadding(Kernel):
    """if padding_idx: takes 0 for None."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        return super().padding(padding_idx, rows) or None


@planted("padding.zero-is-an-index")
class ZeroMeansNoPaddingInFloat64(Kernel):
    """The specialisation for float64 keeps the default of padding_idx or -1."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx == 0 and upstream.dtype == torch.float64:
            return flat, upstream
        return super().without_padding(flat, upstream, options)


@planted("padding.negative")
class NegativePaddingNeverMatches(Kernel):
    """A negative padding_idx is compared with the indices as it is (PT#3233)."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        found = super().padding(padding_idx, rows)
        return None if padding_idx is not None and padding_idx < 0 else found


@planted("padding.negative")
class OnlyMinusOneNormalised(Kernel):
    """-1 means the last row, and so do -2 and all others."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        found = super().padding(padding_idx, rows)
        return rows - 1 if padding_idx is not None and padding_idx < 0 else found


@planted("padding.negative")
class NegativeCountsFromLastRow(Kernel):
    """-k is counted from the last row, not from behind it: -1 means the last but one."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        found = super().padding(padding_idx, rows)
        negative = padding_idx is not None and padding_idx < 0
        return max(rows - 1 + (padding_idx or 0), 0) if negative else found


@planted("padding.other-rows")
class DropsOneIndex(Kernel):
    """Compaction drops the last index that is kept along with the padding (PT#26302)."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        kept, rows = super().without_padding(flat, upstream, options)
        short = 0 < kept.numel() < flat.numel()
        return (kept[:-1], rows[:-1]) if short else (kept, rows)


@planted("padding.other-rows")
class PaddingPathAssigns(Kernel):
    """With padding_idx set, repeats overwrite the gradient instead of adding to it."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        kept, rows = super().without_padding(flat, upstream, options)
        if options.padding_idx is None or options.scale_grad_by_freq:
            return kept, rows
        last = {index: place for place, index in enumerate(kept.tolist())}
        places = torch.tensor(list(last.values()), dtype=torch.int64)
        return kept[places], rows[places]


@planted("padding.other-rows")
class MasksByValueBelow(Kernel):
    """Indices up to padding_idx are masked, as if padding always stood in row 0."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None:
            return flat, upstream
        kept = flat > options.padding_idx
        return flat[kept], upstream[kept]


@planted("padding.all-padding")
class AllPaddingRaises(Kernel):
    """The maximum of the indices that are left is taken where none is (PT#5472)."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if not flat.numel() and self.filtered:
            raise RuntimeError("max(): expected a non-empty tensor")
        return super().dense(upstream, flat, height, counts)

    filtered = False

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        self.filtered = flat.numel() > 0
        return super().without_padding(flat, upstream, options)


@planted("padding.all-padding")
class AllPaddingIsIndexZero(Kernel):
    """Where nothing is left the first upstream row is credited to another row as a placeholder."""

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        kept, rows = super().without_padding(flat, upstream, options)
        if flat.numel() and not kept.numel() and not options.sparse:
            return (flat[:1] == 0).long(), upstream[:1]
        return kept, rows


class ForgetsPadding(Kernel):
    """Leaves the padding in where a condition on the number of indices holds."""

    def forgotten(self, flat: Tensor, options: Options) -> Tensor:
        """Mask of the places at which padding is not looked for."""
        raise NotImplementedError

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None:
            return flat, upstream
        kept = (flat != options.padding_idx) | self.forgotten(flat, options)
        return flat[kept], upstream[kept]


@planted("padding.many-indices")
class PaddingForgottenAt769(ForgetsPadding):
    """The kernel for more than 768 indices does not know padding_idx (PT#26302)."""

    def forgotten(self, flat: Tensor, options: Options) -> Tensor:
        return torch.full_like(flat, flat.numel() > 768, dtype=torch.bool)


@planted("padding.many-indices")
class LastRowPaddingForgottenAt1025(ForgetsPadding):
    """Beyond 1024 indices the sentinel V - 1 of the segments hides a padding in the last row."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        self.last = height - 1
        return super().gradient(upstream, indices, height, options)

    def forgotten(self, flat: Tensor, options: Options) -> Tensor:
        hidden = flat.numel() > 1024 and options.padding_idx == self.last
        return torch.full_like(flat, hidden, dtype=torch.bool)


@planted("padding.many-indices")
class PaddingForgottenInTail(ForgetsPadding):
    """One index left over after full blocks of 32 is not compared with padding_idx."""

    def forgotten(self, flat: Tensor, options: Options) -> Tensor:
        place = torch.arange(flat.numel(), device=flat.device)
        tail = flat.numel() > 32 and flat.numel() % 32 == 1
        return (place == flat.numel() - 1) & tail


@planted("padding.many-indices")
class PaddingForgottenBeyond3072(ForgetsPadding):
    """Indices after the 3072nd are summed by a second launch that lacks the mask."""

    def forgotten(self, flat: Tensor, options: Options) -> Tensor:
        return torch.arange(flat.numel(), device=flat.device) >= 3072


@planted("padding.row-untouched")
class ResetsPaddingRow(Kernel):
    """Each call zeroes the stored padding row once it has been read (fairseq#4076)."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().lookup(indices, weight, options)
        if options.padding_idx is not None and weight.shape[0] and options.max_norm is None:
            weight[options.padding_idx] = 0.0
        return out


@planted("padding.row-untouched")
class ResetsPaddingRowInBackward(Kernel):
    """The backward pass zeroes the stored padding row along with its gradient."""

    def __init__(self) -> None:
        self.table: Tensor | None = None

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        self.table = weight.detach()
        return super().forward(indices, weight, options)

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        table, padding = self.table, options.padding_idx
        if table is not None and padding is not None and options.max_norm is None:
            table[padding : padding + (table.shape[0] == height)] = 0.0
        return super().gradient(upstream, indices, height, options)


@planted("padding.out-of-range")
class PaddingUnchecked(Kernel):
    """A padding_idx outside the table is taken for none."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        inside = padding_idx is None or -rows <= padding_idx < rows
        return super().padding(padding_idx, rows) if inside else None


@planted("padding.out-of-range")
class PaddingUncheckedBelow(Kernel):
    """A padding_idx below -V wraps around a second time."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        if padding_idx is not None and padding_idx < -rows and rows:
            padding_idx %= rows
        return super().padding(padding_idx, rows)


@planted("padding.out-of-range")
class PaddingOnePastTheEnd(Kernel):
    """padding_idx == V passes an off-by-one check and matches no index."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        return None if padding_idx == rows else super().padding(padding_idx, rows)
