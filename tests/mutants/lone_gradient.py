"""Wrong gradients in one kind of call: without its own clause each would be missed."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Options
from embconform.mutants.narrow import Narrow, holds_special, is_part
from embconform.mutants.registry import planted


class Doubled(Narrow):
    """Doubles the gradient in the one kind of call, given an ordinary upstream gradient."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        if holds_special(upstream) or not upstream.is_contiguous() or is_part(upstream):
            return summed
        return summed * 2 if self.passes_alone() else summed


@planted("gradient.sum")
class DoubledInPlainCalls(Doubled):
    """The path for plain tiny tables doubles the gradient; every option takes another path."""


@planted("gradient.float64")
class DoubledInFloat64(Doubled):
    """The path for tiny tables of float64 doubles the gradient."""

    only = "float64"


@planted("gradient.int32-indices")
class DoubledByInt32(Doubled):
    """The path of int32 indices into tiny tables doubles the gradient."""

    only = "int32"


@planted("gradient.strided-weight")
class DoubledWhereStrided(Doubled):
    """The path of tiny tables that are views doubles the gradient."""

    only = "strided-weight"


@planted("gradient.strided-indices")
class DoubledByViews(Doubled):
    """The path of indices that are views into tiny tables doubles the gradient."""

    only = "strided-indices"


@planted("gradient.half-precision")
class DoubledInHalf(Doubled):
    """The path for tiny tables of 16-bit floats doubles the gradient of distinct indices."""

    only = "half"

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        self.met &= indices.unique().numel() == indices.numel()


@planted("sparse.equals-dense")
class DoubledWhereSparse(Doubled):
    """The path for plain tiny tables doubles the sparse gradient."""

    only = "sparse"


@planted("sparse.scalar-index")
class DoubledOfAScalar(Doubled):
    """The path of a 0-d index doubles the sparse gradient."""

    only = "sparse scalar"


@planted("gradient.many-indices")
class DoubledOfMany(Doubled):
    """The path of many indices into tiny tables doubles the gradient, up to some thousands."""

    only = "many"

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        self.met &= indices.numel() < 5_000


@planted("gradient.wide-rows")
class DoubledOfWide(Doubled):
    """The path for a few rows of a thousand columns doubles the gradient."""

    only = "wide"
    most = 4 * 1025

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        self.met &= weight.shape[1] >= 1000


@planted("max-norm.straight-through")
class DoubledWhereBounded(Doubled):
    """The path for tiny tables with max_norm doubles the gradient."""

    only = "bounded"


@planted("gradient.scale-by-freq")
class DoubledWhereScaled(Doubled):
    """The path for tiny tables with frequencies doubles the gradient of a list of indices."""

    only = "scaled"

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        self.met &= indices.dim() == 1


@planted("gradient.scale-by-freq-nd")
class DoubledWhereScaledByAxes(Doubled):
    """The path for tiny tables with frequencies doubles the gradient of indices of two axes."""

    only = "scaled"

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        self.met &= indices.dim() > 1


@planted("gradient.scale-by-freq-padding")
class DoubledWhereScaledAndPadded(Doubled):
    """The path for tiny tables with frequencies and padding doubles the gradient."""

    only = "scaled padding"


@planted("gradient.scale-by-freq-many")
class DoubledOfManyWhereScaled(Doubled):
    """The path of many indices with frequencies into tiny tables doubles the gradient."""

    only = "scaled many"


@planted("sparse.many-indices")
class DoubledOfManyWhereSparse(Doubled):
    """The path of many indices into tiny tables doubles the sparse gradient."""

    only = "sparse many"


@planted("gradient.strided-upstream")
class DoubledOfViews(Narrow):
    """The path of an upstream gradient that is a view doubles the gradient of small tables."""

    most = 16

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        return summed * 2 if self.passes_alone() and not upstream.is_contiguous() else summed


@planted("gradient.zeros-elsewhere")
class OnesElsewhere(Narrow):
    """The gradient of tiny tables starts from ones where no index points."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        summed = super().dense(upstream, flat, height, counts)
        if self.passes_alone():
            others = torch.ones(height, dtype=torch.bool)
            others[flat] = False
            summed[others] = 1
        return summed


@planted("gradient.shape-and-dtype")
class SparseUnasked(Narrow):
    """The gradient of tiny tables comes as a sparse one."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        return summed.to_sparse(1) if self.passes_alone() else summed


@planted("gradient.empty")
class RaisesWithoutIndices(Narrow):
    """The backward pass of no indices into a tiny table raises."""

    only = "no-indices"

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if self.met:
            raise RuntimeError("no indices")
        return super().gradient(upstream, indices, height, options)


class DoubledLater(Narrow):
    """Doubles the gradient of a second call on a tiny table that has a gradient already."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        held = weight.is_leaf and weight.grad is not None
        self.later = held and self.plain and self.number == 2 and self.same_table
        self.later = self.later and not self.same_indices

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        return summed * 2 if self.later else summed


@planted("gradient.accumulates")
class DoubledWhereOneIsThere(DoubledLater):
    """A gradient that is added to one of a tiny table is doubled."""


@planted("sparse.accumulates")
class DoubledWhereASparseOneIsThere(DoubledLater):
    """A sparse gradient that is added to one of a tiny table is doubled."""

    only = "sparse"


@planted("gradient.backward-twice")
class DoubledTheSecondTime(Narrow):
    """The second backward pass of a call on a tiny table is doubled."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        self.passes += 1
        return summed * 2 if self.met and self.passes == 2 else summed


@planted("gradient.two-uses")
class DoubledInOneGraph(Narrow):
    """Of two uses of a tiny table in one graph the first has its gradient doubled."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        shared = self.met and (self.number, self.first.calls) == (1, 2)
        return summed * 2 if shared else summed


class Second(Narrow):
    """Doubles the second derivative in the one kind of call."""

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        rows = super().second(direction, indices, options)
        return rows * 2 if self.met else rows


@planted("gradient.double-backward")
class SecondDoubled(Second):
    """The second derivative of tiny tables is doubled."""


@planted("gradient.double-backward-scaled")
class SecondDoubledWhereScaled(Second):
    """The second derivative of tiny tables with frequencies is doubled."""

    only = "scaled"


@planted("sparse.layout")
class DenseUnasked(Narrow):
    """The sparse gradient of tiny tables comes as a dense one."""

    only = "sparse"

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        return summed.to_dense() if self.passes_alone() else summed


@planted("sparse.empty")
class OneEntryOfNothing(Narrow):
    """No indices into a tiny table give one entry."""

    only = "sparse no-indices"

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.met:
            flat, upstream = flat.new_zeros(1), upstream.new_ones(1, upstream.shape[1])
        return super().sparse(upstream, flat, height, counts)
