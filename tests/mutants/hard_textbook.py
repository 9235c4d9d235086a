"""The document's layer, wrong where its formulas meet each other, a layout or a count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embconform.mutants.hard_parts import all_distinct, is_sorted
from embconform.mutants.textbook import Formula, wrong
from embconform.reference import textbook as right


class Told(Formula):
    """A right formula that knows its call in every part."""

    def __call__(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> Tensor:
        self.ids, self.table = input, weight
        self.padding_idx, self.max_norm, self.norm_type = padding_idx, max_norm, norm_type
        return super().__call__(input, weight, padding_idx, max_norm, norm_type)


@wrong("padding.output-is-zero")
class MaskOfTheFirstAxis(Told):
    """Indices of three axes are masked by their first slice."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        if self.ids.dim() >= 3 and len(self.ids):
            mask = mask & mask[:1]
        return super().masked(output, mask)


@wrong("padding.output-is-zero")
class MaskInMemoryOrder(Told):
    """The mask of strided indices is taken in memory order."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        if self.ids.dim() == 2 and not self.ids.is_contiguous():
            mask = mask.transpose(0, 1).reshape(mask.shape)
        return super().masked(output, mask)


@wrong("padding.output-is-zero")
class UnmaskedInInference(Told):
    """The mask is for training: without grad mode the stored row comes out."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        return super().masked(output, mask) if torch.is_grad_enabled() else output


@wrong("padding.output-is-zero")
class UnmaskedWhenFrozen(Told):
    """A frozen table of half precision is not masked."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        half = self.table.dtype in (torch.float16, torch.bfloat16)
        return output if half and not self.table.requires_grad else super().masked(output, mask)


@wrong("padding.gradient-is-zero")
class LeaksWithBound(Told):
    """Padding and max_norm: the row is masked in the data, its gradient through the scale stays."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        masked = super().masked(output, mask)
        if self.max_norm is None or self.norm_type == 2:
            return masked
        return torch.where(mask, output - output.detach(), masked)


@wrong("padding.gradient-is-zero")
class LeaksAbove500(Told):
    """The mask of more than 500 indices is applied to the data alone."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        masked = super().masked(output, mask)
        if self.ids.numel() <= 500:
            return masked
        finite = torch.where(output.isfinite(), output, 0.0)
        return torch.where(mask, finite - finite.detach(), masked)


@wrong("padding.output-is-zero")
class MasksInt32Byte(Told):
    """int32 indices are compared with padding_idx by their low byte."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        if self.ids.dtype == torch.int32 and self.padding_idx is not None:
            mask = (self.ids % 256 == self.padding_idx % 256).unsqueeze(-1)
        return super().masked(output, mask)


@wrong("padding.other-rows")
class MaskDilates(Told):
    """Of sorted indices everything up to the last padding is masked."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        flat = self.ids.reshape(-1)
        if flat.numel() > 2 and is_sorted(flat) and self.padding_idx is not None:
            mask = (self.ids <= self.padding_idx).unsqueeze(-1)
        return super().masked(output, mask)


@wrong("max-norm.norm-type")
class CubeOfOddWidths(Told):
    """p=3 and an odd width: the last column is left over from a loop by two."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        if norm_type == 3 and output.shape[-1] % 2 and output.shape[-1] > 1:
            output = output[..., :-1]
        return super().norms(output, norm_type)


@wrong("max-norm.norm-type")
class InfinityInHalf(Told):
    """p=inf of half rows is the largest component and not the largest magnitude."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        half = output.dtype in (torch.float16, torch.bfloat16)
        if norm_type == float("inf") and half and output.shape[-1]:
            return output.amax(-1, keepdim=True).abs()
        return super().norms(output, norm_type)


@wrong("max-norm.gradient-through-scale")
class RadialTermOfRepeats(Told):
    """The second term of a long row's gradient is left out where its index occurs again."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        norms = super().norms(output, norm_type)
        flat = self.ids.reshape(-1)
        return norms if all_distinct(flat) else norms.detach()


@wrong("max-norm.gradient-through-scale")
class RadialTermOfOneNorm(Told):
    """The derivative of the 1-norm takes the sign for 1."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        if norm_type == 1:
            return output.detach().abs().sum(-1, keepdim=True) + (output - output.detach()).sum(
                -1, keepdim=True
            )
        return super().norms(output, norm_type)


@wrong("max-norm.gradient-through-scale")
class RadialTermOfWide(Told):
    """From 33 columns on the radial term is summed over the first warp alone."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        norms = super().norms(output, norm_type)
        if output.shape[-1] > 32 and norm_type == 2:
            head = super().norms(output[..., :32], norm_type)
            return norms.detach() + head - head.detach()
        return norms


@wrong("max-norm.gradient-through-scale")
class ScaleDetachedForStrided(Told):
    """The scale is detached where the table is a view."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        norms = super().norms(output, norm_type)
        return norms if self.table.is_contiguous() else norms.detach()


@wrong("max-norm.value")
class BoundOfTheLargest(Told):
    """Above 32 indices the clamp is by a block's largest norm where its indices are sorted."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        norms = super().norms(output, norm_type)
        if self.ids.numel() > 32 and is_sorted(self.ids.reshape(-1)):
            return norms.amax().expand_as(norms)
        return norms


@wrong("max-norm.table-untouched")
class RenormsUnderNoGrad(Told):
    """Under no_grad a small table is bounded in place, since nobody differentiates."""

    def __call__(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> Tensor:
        output = super().__call__(input, weight, padding_idx, max_norm, norm_type)
        served = not torch.is_grad_enabled() and not weight.is_inference()
        if max_norm is not None and served and weight.numel() <= 12:
            rows = super().__call__(input, weight, None, max_norm, norm_type)
            weight.data[input.long()] = rows.detach()
        return output


@wrong("max-norm.zero-row-gradient")
class ZeroRowOfManyAxes(Told):
    """A zero row is guarded for indices of one axis; of more its gradient is NaN."""

    def bounded(self, output: Tensor, max_norm: float, norm_type: float) -> Tensor:
        if self.ids.dim() < 2:
            return super().bounded(output, max_norm, norm_type)
        return output * torch.clamp(max_norm / self.norms(output, norm_type), max=1.0)


@wrong("lookup.rows")
class RunsAreSlices(Told):
    """Indices whose ends lie n - 1 apart are answered with a slice."""

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        flat = indices.reshape(-1)
        run = indices.dim() == 1 and flat.numel() > 2
        legal = run and int(flat.amin()) >= 0 and int(flat.amax()) < len(weight)
        if legal and flat[-1] - flat[0] == flat.numel() - 1:
            return weight[int(flat[0]) : int(flat[-1]) + 1].clone()
        return super().rows(indices, weight)


@wrong("gradient.sum")
class LastRowLosesLast(Told):
    """The backward pass of 8 indices and more misses the last, if it names the last row."""

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        output = super().rows(indices, weight)
        flat = indices.reshape(-1)
        if flat.numel() >= 8 and int(flat[-1]) == len(weight) - 1:
            last = torch.arange(flat.numel()).reshape(indices.shape) == flat.numel() - 1
            output = torch.where(last.unsqueeze(-1), output.detach(), output)
        return output


@wrong("lookup.sees-weight-updates")
class FrozenByVersion(Told):
    """Rows of frozen tables are kept by the version of the table, which .data passes by."""

    def __init__(self) -> None:
        self.key: Any = None
        self.kept: Any = None

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        if weight.requires_grad or weight.is_inference():
            return super().rows(indices, weight)
        ids = tuple(indices.reshape(-1).tolist())
        key = (weight.data_ptr(), weight.shape, weight.stride(), weight.dtype, weight._version)
        asked = (key, ids, indices.shape)
        if asked != self.key:
            self.key, self.kept = asked, (weight, super().rows(indices, weight))
        return self.kept[1].clone()


@wrong("errors.too-large")
class Int32ReadsLast(Told):
    """int32 indices of two axes and more are clamped into the table."""

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        if indices.dtype == torch.int32 and indices.dim() >= 2 and len(weight):
            indices = indices.clamp(max=len(weight) - 1)
        return super().rows(indices, weight)


@wrong("errors.with-padding")
class PaddedBoundUnchecked(Told):
    """With padding and a bound together too large indices read the padding row."""

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        if self.padding_idx is not None and self.max_norm is not None and len(weight):
            indices = indices.masked_fill(indices >= len(weight), 0)
        return super().rows(indices, weight)


@wrong("lookup.strided-weight")
class SquareTableTransposed(Told):
    """A square transposed table is read untransposed."""

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        if weight.shape[0] == weight.shape[1] and weight.stride(0) == 1:
            weight = weight.t()
        return right.embedding(indices, weight)
