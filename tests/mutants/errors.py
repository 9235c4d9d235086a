"""Calls that should be refused and are not, or not as they should."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


class Lenient(Kernel):
    """Lets bad indices pass where a condition holds, and clamps them as jnp.take does."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return True

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.clamp(0, height - 1)

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if self.lets_pass(indices, weight, options):
            if not weight.shape[0]:
                return weight.new_zeros(*indices.shape, weight.shape[1])
            indices = self.clamped(indices, weight.shape[0])
        return super().forward(indices, weight, options)


@planted("errors.too-large")
class ClampsTooLarge(Lenient):
    """Too large indices name the last row (JAX#5766)."""

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.clamp(max=height - 1)


@planted("errors.too-large")
class HeightIsAccepted(Lenient):
    """id > V is refused, id == V is not."""

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.masked_fill(indices == height, height - 1)


@planted("errors.too-large")
class TooLargeGivesZeros(Lenient):
    """Too large indices give rows of zeros (TF#5847)."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        bad = indices >= weight.shape[0]
        out = super().forward(indices, weight, options)
        return out.masked_fill(bad.unsqueeze(-1), 0.0) if bad.any() else out

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.clamp(max=height - 1)


@planted("errors.negative")
class NegativesWrap(Lenient):
    """Negative indices count from the end (PT#151918)."""

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return torch.where((indices < 0) & (indices >= -height), indices + height, indices)


@planted("errors.negative")
class MinusOneIsIgnored(Lenient):
    """-1 stands for no index and reads row 0."""

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.masked_fill(indices == -1, 0)


@planted("errors.far-away")
class ChecksLow32Bits(Lenient):
    """Indices are cut to 32 bits before they are checked: 2**32 + 3 is 3."""

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.int().to(indices.dtype)


@planted("errors.far-away")
class NegatesToCheck(Lenient):
    """A sign check by -id > 0 misses -2**63, which is its own negative."""

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.masked_fill(indices.long() == torch.iinfo(torch.int64).min, 0)


@planted("errors.far-away")
class OffsetOverflows(Lenient):
    """The byte offset is checked: 2**62 rows of four bytes and more overflow to 0."""

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        wide = indices.long()
        return torch.where(wide >= 2**62, wide - 2**62, wide).to(indices.dtype)


@planted("errors.any-position")
class ChecksEnds(Lenient):
    """Only the first and the last index are checked, as if they came sorted."""

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        flat = indices.reshape(-1).clone()
        flat[1:-1].clamp_(0, height - 1)
        return flat.reshape(indices.shape)


@planted("errors.any-position")
class ChecksFirst1024(Lenient):
    """One block checks one index a thread; those after the 1024th are not checked."""

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        flat = indices.reshape(-1).clone()
        flat[1024:].clamp_(0, height - 1)
        return flat.reshape(indices.shape)


@planted("errors.any-position")
class LastOfManyUnchecked(Lenient):
    """In calls of more than 1000 indices the last chunk is checked up to its last but one."""

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        flat = indices.reshape(-1).clone()
        if flat.numel() > 1000:
            flat[-1:].clamp_(0, height - 1)
        return flat.reshape(indices.shape)


@planted("errors.int32")
class Int32Unchecked(Lenient):
    """The check is compiled for int64 only."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return indices.dtype == torch.int32


@planted("errors.zero-width")
class ZeroWidthUnchecked(Lenient):
    """A table without columns returns before the check (PT#115239)."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return weight.shape[1] == 0 < weight.shape[0]


@planted("errors.empty-table")
class EmptyTableGivesZeros(Lenient):
    """A table without rows gives zeros for every index (PT#145267)."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return weight.shape[0] == 0 < indices.numel()


@planted("errors.with-max-norm")
class MaxNormUnchecked(Lenient):
    """The path for max_norm uses the indices before they are checked (PT#170782)."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return options.max_norm is not None


@planted("errors.with-padding")
class PaddingDisablesCheck(Lenient):
    """Setting padding_idx disables the range check (Paddle#79491)."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return options.padding_idx is not None


@planted("errors.with-padding")
class LastPaddingTakesTooLarge(Lenient):
    """With padding in the last row everything from V - 1 on counts as padding."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return options.padding_idx == weight.shape[0] - 1

    def clamped(self, indices: Tensor, height: int) -> Tensor:
        return indices.clamp(max=height - 1)


@planted("errors.without-grad")
class NoGradUnchecked(Lenient):
    """Under no_grad and inference_mode the check is saved."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return not torch.is_grad_enabled()


@planted("errors.without-grad")
class FrozenUnchecked(Lenient):
    """A frozen table is read without a check."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return not weight.requires_grad


@planted("errors.without-grad")
class InferenceUnchecked(Lenient):
    """Under inference_mode, and only there, the check is saved."""

    def lets_pass(self, indices: Tensor, weight: Tensor, options: Options) -> bool:
        return torch.is_inference_mode_enabled()


class LenientDtype(Kernel):
    """Converts indices of dtypes that should be refused."""

    dtypes: tuple[torch.dtype, ...] = ()

    def check_types(self, indices: Tensor, weight: Tensor) -> None:
        wide = indices.long() if indices.dtype in self.dtypes else indices
        super().check_types(wide, weight)

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        wide = indices.long() if indices.dtype in self.dtypes else indices
        return super().forward(wide, weight, options)


@planted("errors.index-dtype")
class FloatIndicesTruncated(LenientDtype):
    """Float indices are truncated."""

    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@planted("errors.index-dtype")
class BooleansAreIndices(LenientDtype):
    """False and True name rows 0 and 1."""

    dtypes = (torch.bool,)


@planted("errors.index-dtype")
class SmallIntegersAccepted(LenientDtype):
    """Every integer dtype is taken for an index."""

    dtypes = (torch.int8, torch.int16, torch.uint8)


@planted("errors.weight-rank")
class VectorIsColumn(Kernel):
    """A 1-D table is taken for one column."""

    def check_types(self, indices: Tensor, weight: Tensor) -> None:
        super().check_types(indices, weight.unsqueeze(1) if weight.dim() == 1 else weight)

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        return super().forward(
            indices, weight.unsqueeze(1) if weight.dim() == 1 else weight, options
        )


@planted("errors.weight-rank")
class RowsOfAnyShape(Kernel):
    """A 3-D table gives slices of its first dimension."""

    def check_types(self, indices: Tensor, weight: Tensor) -> None:
        super().check_types(indices, weight.flatten(1) if weight.dim() > 2 else weight)

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        flat = weight.flatten(1) if weight.dim() > 2 else weight
        out = super().forward(indices, flat, options)
        return out.reshape(*indices.shape, *weight.shape[1:])
