"""Bad calls that pass where other conditions meet."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.errors import Lenient
from embconform.mutants.hard_parts import Noted, is_sorted
from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.registry import planted


@planted("errors.int32")
class Int32RankTwoUnchecked(Lenient):
    """int32 indices of two axes and more are not checked from below."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return indices.dtype == torch.int32 and indices.dim() >= 2

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.clamp(min=0)


@planted("errors.too-large")
class SortedChecksFirst(Lenient):
    """Sorted indices are checked at their first, which would be the largest if they fell."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        flat = indices.reshape(-1)
        return flat.numel() > 2 and is_sorted(flat)

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.clamp(max=height - 1)


@planted("errors.any-position")
class SecondHalfUnchecked(Lenient):
    """Of more than 64 indices with strides the second half is not checked."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return indices.numel() > 64 and not indices.is_contiguous()


@planted("errors.too-large")
class TransposedHeight(Lenient):
    """The bound of a transposed table is its other side, where that is the larger."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        height, width = weight.shape
        bad = indices.numel() and int(indices.amax()) < max(height, width)
        return bool(bad) and weight.stride(0) == 1 and width > 1

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.clamp(max=height - 1)


@planted("errors.too-large")
class SliceOfRowsReadsOn(Lenient):
    """Rows behind a row slice are in memory and are read: the check knows the base's rows."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        room = weight.untyped_storage().nbytes() // max(weight.element_size(), 1)
        needed = weight.storage_offset() + weight.numel()
        return bool(weight.numel()) and room > needed and weight.is_contiguous()

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.masked_fill(indices == height, height - 1)


@planted("errors.with-max-norm")
class BoundAndPaddingUnchecked(Lenient):
    """max_norm and padding_idx together: the check is left to the renorm, which skips it."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return options.max_norm is not None and options.padding_idx is not None


@planted("errors.with-padding")
class SparsePaddingUnchecked(Lenient):
    """sparse and padding_idx together have no range check."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return options.sparse and options.padding_idx is not None


@planted("errors.without-grad")
class FrozenHalfUnchecked(Lenient):
    """Frozen half tables, as served, are read without a check."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return weight.dtype in HALVES and not weight.requires_grad


@planted("errors.without-grad")
class InferencePaddingUnchecked(Lenient):
    """Under inference_mode with padding_idx, bad indices give the padding row."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return torch.is_inference_mode_enabled() and options.padding_idx is not None


@planted("errors.negative")
class MinusPaddingPasses(Lenient):
    """-1 passes as padding where padding_idx is the last row."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return options.padding_idx is not None and options.padding_idx == weight.shape[0] - 1

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.masked_fill(indices == -1, height - 1)


@planted("errors.far-away")
class FarAwayInManyWraps(Lenient):
    """More than 8 indices are narrowed to 32 bits before the check."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return indices.dtype == torch.int64 and indices.numel() > 8

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.to(torch.int32)


@planted("errors.too-large")
class ScalarUnchecked(Lenient):
    """A 0-d int32 index is not checked."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return not indices.dim() and indices.dtype == torch.int32


@planted("errors.any-position")
class LastOfFullBlocks(Kernel):
    """Blocks of 256 check their own; at a multiple of 64 above 64 the last index is nobody's."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        count = indices.numel()
        if count >= 64 and count % 8 == 0:
            indices = indices.reshape(-1)[:-1]
        super().check_range(indices, weight, options)

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(flat.clamp(0, weight.shape[0] - 1), weight)


@planted("errors.next-call-works")
class PoisonedByStrided(Kernel):
    """After a refused call the next one with strided indices reads its first index twice."""

    failed = False

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        failed, self.failed = self.failed, True
        super().check_range(indices, weight, options)
        self.failed = False
        self.after = failed

    after = False

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if self.after and flat.numel() > 1:
            self.after = False
            flat = torch.cat([flat[:1], flat[:-1]])
        return super().rows(flat, weight)


@planted("errors.atomic")
class RenormsHeadOfLarge(Noted):
    """Under a bound the first block of a call is renormed before the second is found bad."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        flat = indices.reshape(-1)
        if options.max_norm is not None and flat.numel() > 1 and weight.shape[1]:
            good = flat[: flat.numel() // 2]
            if good.numel() and int(good.amin()) >= 0 and int(good.amax()) < weight.shape[0]:
                with torch.no_grad():
                    self.renorm(good, weight, options)
        super().check_range(indices, weight, options)
