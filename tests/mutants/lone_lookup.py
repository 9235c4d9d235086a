"""Wrong rows in one kind of call: without its own clause each would be missed."""

from __future__ import annotations

from torch import Tensor

from embconform.mutants.kernel import Options
from embconform.mutants.narrow import Narrow
from embconform.mutants.registry import planted


class Negated(Narrow):
    """Negates the rows in the one kind of call."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        return rows.neg() if self.met else rows


@planted("lookup.rows")
class NegatedInPlainCalls(Negated):
    """The path for plain tiny tables negates the rows; every option takes another path."""


@planted("lookup.half-precision")
class NegatedInHalf(Negated):
    """The path for tiny tables of 16-bit floats negates the rows."""

    only = "half"


@planted("lookup.float64")
class NegatedInFloat64(Negated):
    """The path for tiny tables of float64 negates the rows."""

    only = "float64"


@planted("lookup.int32-indices")
class NegatedByInt32(Negated):
    """The path of int32 indices into tiny tables negates the rows."""

    only = "int32"


@planted("lookup.strided-weight")
class NegatedWhereStrided(Negated):
    """The path of tiny tables that are views negates the rows."""

    only = "strided-weight"


@planted("lookup.strided-indices")
class NegatedByViews(Negated):
    """The path of indices that are views into tiny tables negates the rows."""

    only = "strided-indices"


@planted("gradient.frozen")
class NegatedWithoutGrad(Negated):
    """The path of tiny tables that need no gradient negates the rows."""

    only = "no-grad"
