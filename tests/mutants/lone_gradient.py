"""Wrong gradients in one kind of call: without its own clause each would be missed."""

from __future__ import annotations

from torch import Tensor

from embconform.mutants.kernel import Options
from embconform.mutants.narrow import Narrow
from embconform.mutants.registry import planted


class Doubled(Narrow):
    """Doubles the gradient in the one kind of call."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        if not upstream.is_contiguous() or upstream.storage_offset():
            return summed
        if upstream.untyped_storage().nbytes() != upstream.numel() * upstream.element_size():
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
