"""Trained padding in one kind of call: without its own clause each would be missed."""

from __future__ import annotations

from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.narrow import Narrow
from embconform.mutants.registry import planted


class Trains(Narrow):
    """Trains the padding row in the one kind of call."""

    only = "padding"

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None or not upstream.isfinite().all():
            return super().without_padding(flat, upstream, options)
        kept = flat != options.padding_idx
        if not self.is_kind(kept, options):
            return flat[kept], upstream[kept]
        return (flat, upstream) if self.passes_alone() else (flat[kept], upstream[kept])

    def is_kind(self, kept: Tensor, options: Options) -> bool:
        """Whether the call is of the one kind, from which indices are not padding."""
        return True


@planted("padding.gradient-is-zero")
class TrainsPaddingInPlainCalls(Trains):
    """The path for plain tiny tables trains a padding row that is not the first."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        self.positive = padding_idx is not None and padding_idx > 0
        return super().padding(padding_idx, rows)

    def is_kind(self, kept: Tensor, options: Options) -> bool:
        return self.positive and bool(kept.any())


@planted("padding.zero-is-an-index")
class TrainsRowZeroInPlainCalls(Trains):
    """The path for plain tiny tables trains padding row 0 where other rows are looked up too."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        self.zero = padding_idx == 0
        return super().padding(padding_idx, rows)

    def is_kind(self, kept: Tensor, options: Options) -> bool:
        return self.zero and bool(kept.any())


@planted("padding.negative")
class TrainsNegativePaddingInPlainCalls(Trains):
    """The path for plain tiny tables trains the padding row that is counted from the end."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        self.negative = padding_idx is not None and padding_idx < 0
        return super().padding(padding_idx, rows)

    def is_kind(self, kept: Tensor, options: Options) -> bool:
        return self.negative and bool(kept.any())


@planted("padding.all-padding")
class TrainsNothingButPadding(Trains):
    """The path for plain tiny tables trains the padding row where nothing else is looked up."""

    def is_kind(self, kept: Tensor, options: Options) -> bool:
        return not kept.any()


@planted("padding.many-indices")
class TrainsPaddingOfMany(Trains):
    """The path of many indices into tiny tables trains the padding row."""

    only = "padding many"


@planted("sparse.padding-excluded")
class TrainsPaddingWhereSparse(Trains):
    """The path for plain tiny tables has padding among the entries of a sparse gradient."""

    only = "padding sparse"

    def is_kind(self, kept: Tensor, options: Options) -> bool:
        return bool(kept.any())


@planted("sparse.all-padding")
class TrainsNothingButPaddingWhereSparse(Trains):
    """The path for plain tiny tables gives a batch of padding alone its entries."""

    only = "padding sparse"

    def is_kind(self, kept: Tensor, options: Options) -> bool:
        return not kept.any()


@planted("padding.nonfinite-upstream")
class TrainsPaddingByInfinity(Narrow):
    """The path for plain tiny tables trains the padding row where the gradient is not finite."""

    only = "padding"

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if self.met and flat.numel() and not upstream.isfinite().all():
            return flat, upstream
        return super().without_padding(flat, upstream, options)


@planted("padding.other-rows")
class DoublesOtherRows(Narrow):
    """The path for plain tiny tables with padding doubles the gradient of all other rows."""

    only = "padding"

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        summed = super().gradient(upstream, indices, height, options)
        return summed * 2 if self.passes_alone() else summed


@planted("padding.out-of-range")
class TakesOneRowTooMany(Kernel):
    """padding_idx may be the number of rows, as a row that vocabularies reserve for it."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        return super().padding(None if padding_idx == rows else padding_idx, rows)
