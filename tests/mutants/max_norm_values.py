"""max_norm: the norm, the scale or the bound computed wrongly."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.registry import planted

TILE = 64
"""Columns of a tile."""


@planted("max-norm.epsilon")
class NoEpsilon(Kernel):
    """The scale is max_norm / norm."""

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        return max_norm / norms


@planted("max-norm.epsilon")
class MachineEpsilon(Kernel):
    """The machine epsilon of float32 stands for 1e-7, as in the XPU kernel."""

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        return max_norm / (norms + torch.finfo(torch.float32).eps)


@planted("max-norm.epsilon")
class EpsilonAsFloor(Kernel):
    """The norm is clamped to at least 1e-7 instead of having it added."""

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        return max_norm / norms.clamp(min=1e-7)


@planted("max-norm.norm-type")
class InfinityNormIsOne(Kernel):
    """The inf-norm is always 1 (PT#6817)."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        norms = super().norms(rows, norm_type)
        return torch.ones_like(norms) if math.isinf(norm_type) else norms


@planted("max-norm.norm-type")
class PowerWithoutAbs(Kernel):
    """pow(x, p) is summed without abs: odd powers cancel, fractional ones are NaN."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        if math.isinf(norm_type):
            return super().norms(rows, norm_type)
        return rows.pow(norm_type).sum(1).pow(1 / norm_type)


@planted("max-norm.norm-type")
class AlwaysEuclidean(Kernel):
    """norm_type is taken and not used."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        return super().norms(rows, 2.0)


@planted("max-norm.norm-type")
class OtherNormsAreL1(Kernel):
    """Every norm_type but 2 is mapped to 1 (PT#72560)."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        return super().norms(rows, 2.0 if norm_type == 2.0 else 1.0)


@planted("max-norm.norm-type")
class ScaleFlagAsNormType(Kernel):
    """scale_grad_by_freq is handed on in the place of norm_type (fairscale#1132)."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        p = 1.0 if options.scale_grad_by_freq else options.norm_type
        super().renorm(indices, weight, replace(options, norm_type=p))


@planted("max-norm.norm-type")
class NormTypeAsInteger(Kernel):
    """norm_type is an int in the kernel's signature: 0.5 becomes 0, 2.5 becomes 2."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        return super().norms(rows, norm_type if math.isinf(norm_type) else int(norm_type))


@planted("max-norm.under-bound-keeps-bits")
class RenormsAtBound(Kernel):
    """norm >= max_norm is asked instead of norm > max_norm."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        at_bound = self.norms(rows.double(), options.norm_type) == options.max_norm
        return over | at_bound, scaled


@planted("max-norm.under-bound-keeps-bits")
class NormalisesEveryRow(Kernel):
    """Every row is divided by its norm and multiplied by the smaller of norm and bound."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        norms = self.norms(rows, options.norm_type).unsqueeze(1)
        through = rows / norms * norms
        sound = torch.isfinite(through).all(1) & ~over
        chosen = torch.where(over.unsqueeze(1), scaled, through.double())
        return over | sound, chosen


@planted("max-norm.under-bound-keeps-bits")
class WritesBackThroughFloat32(Kernel):
    """Looked-up float64 rows under the bound are written back from a float32 buffer."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if rows.dtype != torch.float64:
            return over, scaled
        chosen = torch.where(over.unsqueeze(1), scaled, rows.float().double())
        return torch.ones_like(over), chosen


@planted("max-norm.under-bound-keeps-bits")
class RenormsEveryRow(Kernel):
    """Rows under the bound are stretched to it."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        return over | torch.isfinite(scaled).all(1), scaled


@planted("max-norm.zero-bound")
class ZeroMeansNoBound(Kernel):
    """if max_norm: takes 0 for None."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if options.max_norm:
            super().renorm(indices, weight, options)


@planted("max-norm.zero-bound")
class BoundHasFloor(Kernel):
    """The bound is clamped to at least 1e-7, and rows under 0 keep a trace."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        bound = max(options.max_norm or 0.0, 1e-7)
        super().renorm(indices, weight, replace(options, max_norm=bound))


@planted("max-norm.strided-weight")
class RenormsContiguousCopy(Kernel):
    """weight.contiguous() is renormed: for a view that is a copy, and the view stays as it was."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().renorm(indices, weight.contiguous(), options)


@planted("max-norm.strided-weight")
class NormOverBaseRow(Kernel):
    """The width of a row is taken from stride(0): the base's other columns count (PT#195185)."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.beside = None
        height, width = weight.shape
        if weight.numel() and weight.stride(1) == 1 and weight.stride(0) > width:
            gap = weight.storage_offset() + width
            room = weight.untyped_storage().nbytes() // weight.element_size()
            if gap + (height - 1) * weight.stride(0) < room:
                column = weight.as_strided((height, 1), weight.stride(), gap)
                self.beside = column[self.distinct(self.flat(indices)).long()].double()
        super().renorm(indices, weight, options)

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        if self.beside is not None and self.beside.shape[0] == rows.shape[0]:
            rows = torch.cat([rows, self.beside], 1)
        return super().norms(rows, norm_type)

    beside: Tensor | None = None


@planted("max-norm.strided-weight")
class TransposedInfinityNorm(Kernel):
    """The inf-norm of a transposed table is the one of its first column stretched over all rows."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.transposed = weight.stride(0) == 1 and weight.shape[1] > 1 and weight.shape[0] > 1
        super().renorm(indices, weight, options)

    transposed = False

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        if self.transposed and math.isinf(norm_type):
            return rows[:, 0].abs().amax().expand(rows.shape[0])
        return super().norms(rows, norm_type)


@planted("max-norm.finite")
class OverflowZeroes(Kernel):
    """A norm that overflows float32 makes the scale 0 and the row with it, as in torch 2.13."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        if rows.dtype in HALVES:
            return super().bounded(rows, options)
        powers = torch.linalg.vector_norm(rows.float(), options.norm_type, dim=1)
        over, scaled = super().bounded(rows, options)
        return over, scaled.masked_fill(torch.isinf(powers).unsqueeze(1), 0.0)


@planted("max-norm.finite")
class HalfNormOverflows(Kernel):
    """The norm of a float16 row is kept in float16, where four times 60000 is infinite."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        norms = self.norms(rows.double(), options.norm_type)
        if rows.dtype == torch.float16:
            scaled = scaled.masked_fill((norms > 65_504).unsqueeze(1), 0.0)
        return over, scaled


@planted("max-norm.finite")
class OverflowIsNan(Kernel):
    """The row is divided by its norm before it is scaled: a row of 1e38 is NaN (TF#47020)."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if rows.dtype != torch.float32:
            return over, scaled
        powers = torch.linalg.vector_norm(rows, options.norm_type, dim=1)
        return over, scaled.masked_fill(torch.isinf(powers).unsqueeze(1), torch.nan)


@planted("max-norm.zero-norm-type")
class NormOfTileNorms(Kernel):
    """Wide rows are normed in tiles, and the tiles' norms by the same p: 0 counts the tiles."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        if norm_type or rows.shape[1] <= TILE:
            return super().norms(rows, norm_type)
        parts = [Kernel.norms(self, tile, 0) for tile in rows.split(TILE, 1)]
        return torch.linalg.vector_norm(torch.stack(parts), norm_type, dim=0)
