"""Range checks that one kind of call skips: without its own clause each would be missed."""

from __future__ import annotations

from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.narrow import Narrow, features
from embconform.mutants.registry import planted

SMALL = 16
"""Elements of a table up to which checks are skipped."""


class Skips(Kernel):
    """Clamps indices into small tables in the one kind of call, where it should check them."""

    only = ""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        far = bool((indices.double().abs() > 2**31).any())
        if far or weight.numel() > SMALL or features(indices, weight, options) != {self.only}:
            return super().forward(indices, weight, options)
        if not weight.shape[0]:
            return weight.new_zeros(*indices.shape, weight.shape[1])
        return super().forward(indices.clamp(0, weight.shape[0] - 1), weight, options)


@planted("errors.negative")
class NegativeOnesWrap(Kernel):
    """A negative index counts from the end in plain calls; every option has a check."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        plain = features(indices, weight, options) <= {"scalar"} and indices.dim() == 1
        low = -weight.shape[0]
        if plain and bool(((indices < 0) & (indices >= low)).any()):
            indices = indices.where(indices >= 0, indices + weight.shape[0])
        return super().forward(indices, weight, options)


@planted("errors.int32")
class Int32NotChecked(Skips):
    """int32 indices are clamped."""

    only = "int32"


@planted("errors.any-position")
class ManyNotChecked(Skips):
    """Many indices are clamped, since the check costs a pass over them."""

    only = "many"


@planted("errors.zero-width")
class ZeroWidthNotChecked(Skips):
    """A table without columns has nothing to read, so nothing is checked."""

    only = "zero-width"


@planted("errors.empty-table")
class EmptyTableNotChecked(Skips):
    """A table without rows gives zeros."""

    only = "empty-table"


@planted("errors.with-max-norm")
class BoundedNotChecked(Skips):
    """The renorm clamps the indices, and the lookup takes what it clamped."""

    only = "bounded"


@planted("errors.with-padding")
class PaddedNotChecked(Skips):
    """The path with padding clamps the indices."""

    only = "padding"


@planted("errors.without-grad")
class NotCheckedWithoutGrad(Skips):
    """The path without a gradient clamps the indices."""

    only = "no-grad"


class Clamps(Kernel):
    """Clamps the indices of a plain call that are out of range in the one way."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        plain = features(indices, weight, options) <= {"scalar"} and indices.numel() > 0
        if plain and self.is_kind(indices, weight.shape[0]):
            indices = indices.clamp(0, weight.shape[0] - 1)
        return super().forward(indices, weight, options)

    def is_kind(self, indices: Tensor, rows: int) -> bool:
        raise NotImplementedError


@planted("errors.too-large")
class TooLargeNotChecked(Clamps):
    """The plain path clamps indices that are a little too large."""

    def is_kind(self, indices: Tensor, rows: int) -> bool:
        return int(indices.min()) >= 0 and rows <= int(indices.max()) < 2**31


@planted("errors.far-away")
class FarNotChecked(Clamps):
    """The plain path clamps indices that are far out of range."""

    def is_kind(self, indices: Tensor, rows: int) -> bool:
        return bool((indices.double().abs() > 2**31).any())


@planted("errors.next-call-works")
class ErrorLeavesItsClamp(Narrow):
    """A small table that an index was out of range for gives its first row from then on."""

    most = 30

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError:
            if self.plain:
                self.first.failed = True
            raise

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        spoilt = self.plain and self.first.failed
        return super().rows(flat * 0 if spoilt else flat, weight)
