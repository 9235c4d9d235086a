"""max_norm: norms of half rows that are accumulated in halves."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.registry import planted

SQUARE_IN_HALF = 255.9
"""The square of a larger number is infinite in float16."""


class AccumulatesNorm(Kernel):
    """Sums the squares of a half row by a rule of its own."""

    def squares(self, rows: Tensor) -> Tensor:
        """The sum of squares of each row."""
        raise NotImplementedError

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if rows.dtype not in HALVES or options.norm_type != 2.0 or options.max_norm is None:
            return over, scaled
        norms = self.squares(rows).double().sqrt()
        again = rows.double() * self.scale(norms, options.max_norm).unsqueeze(1)
        sound = torch.isfinite(norms)
        scaled = torch.where(sound.unsqueeze(1), again, scaled)
        return torch.where(sound, norms > options.max_norm, over), scaled


@planted("max-norm.float32-accumulation")
class NormInHalf(AccumulatesNorm):
    """The squares are added one by one in the table's dtype: ones stop at 256 in bfloat16."""

    def squares(self, rows: Tensor) -> Tensor:
        total = rows.new_zeros(rows.shape[0])
        for column in rows.unbind(1):
            total = total + column * column
        return total


@planted("max-norm.float32-accumulation")
class PartialNormsInHalf(AccumulatesNorm):
    """Two lanes sum every second column each in the table's dtype; the lanes meet in float32."""

    def squares(self, rows: Tensor) -> Tensor:
        total = rows.new_zeros(rows.shape[0], 2)
        for block in rows.split(2, 1):
            total[:, : block.shape[1]] += block * block
        return total.float().sum(1)


@planted("max-norm.half-range")
class SumOfSquaresInHalf(Kernel):
    """Rows without a number whose square overflows are summed in float16: the sum may overflow."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if rows.dtype != torch.float16 or options.norm_type != 2.0:
            return over, scaled
        small = (rows.abs() < SQUARE_IN_HALF).all(1)
        lost = small & torch.isinf((rows * rows).sum(1))
        return over | lost, torch.where(lost.unsqueeze(1), 0.0, scaled)
