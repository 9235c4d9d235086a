"""Wrong renorms in one kind of call: without its own clause each would be missed.

Most of them bound a row twice as tightly as asked. Tables that hold a row of zeros are met in a
single call only, so that no clause on what follows a call has a say.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.hard_parts import all_distinct
from embconform.mutants.kernel import Options
from embconform.mutants.narrow import Narrow
from embconform.mutants.registry import planted

SMALL = 30
"""Elements of a table up to which these bugs show: more than others, since fewer cases fit."""
MEDIUM = 600
"""The same of those for which few cases have the values that they need."""
ORDINARY = 0.05
"""Largest component from which torch's 1e-7 does not show in a renormed row."""


class Short(Narrow):
    """Halves the bound in the one kind of call, in which no row is looked up twice."""

    only = "bounded"
    most = SMALL

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.ids, self.table, self.trained = indices, weight.detach(), weight.is_leaf
        super().see(indices, weight, options)

    def is_kind(self, options: Options) -> bool:
        """Whether the call is of the one kind, all else being plain."""
        return self.is_two(options) and self.once()

    def is_two(self, options: Options) -> bool:
        return options.norm_type == 2 and options.max_norm != 0

    def once(self) -> bool:
        return all_distinct(self.ids) and bool((self.table.abs().amax(1) >= ORDINARY).all())

    def has_zero_row(self) -> bool:
        zero = (self.table == 0).all(1)
        return bool(self.table.isfinite().all() and zero.any() and not zero.all())

    def hit(self, rows: Tensor, options: Options) -> Tensor:
        """Which of the distinct rows are bounded wrongly."""
        return torch.ones(len(rows), dtype=torch.bool)

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if self.met and self.is_kind(options):
            wrong = self.hit(rows, options).unsqueeze(1)
            scaled = torch.where(wrong, self.spoilt(scaled), scaled)
        return over, scaled

    def spoilt(self, scaled: Tensor) -> Tensor:
        return scaled / 2


@planted("max-norm.value")
class ShortBesideZeros(Short):
    """The path for tiny tables with a row of zeros halves the bound."""

    only = "bounded special"

    def is_kind(self, options: Options) -> bool:
        return self.is_two(options) and all_distinct(self.ids) and self.has_zero_row()


@planted("max-norm.once")
class ShortWhereRepeated(Short):
    """The path for small tables with a row of zeros halves the bound of rows named twice."""

    only = "bounded special"
    most = MEDIUM

    def is_kind(self, options: Options) -> bool:
        return self.is_two(options) and self.trained and self.has_zero_row()

    def hit(self, rows: Tensor, options: Options) -> Tensor:
        return self.flat(self.ids).unique(return_counts=True)[1] > 1


@planted("max-norm.padding-row")
class ShortPadding(Short):
    """The path for small tables with a row of zeros halves the bound of the padding row."""

    only = "bounded padding special"
    most = MEDIUM

    def is_kind(self, options: Options) -> bool:
        return self.is_two(options) and all_distinct(self.ids) and self.has_zero_row()

    def hit(self, rows: Tensor, options: Options) -> Tensor:
        return self.flat(self.ids).unique() == options.padding_idx


@planted("max-norm.norm-type")
class ShortCubes(Short):
    """The path of norm_type=3 for small tables halves the bound."""

    only = "bounded"
    most = MEDIUM

    def is_kind(self, options: Options) -> bool:
        return options.norm_type == 3 and self.once()


@planted("max-norm.every-column")
class ShortSpikes(Short):
    """The path for small tables with one component a row halves the bound."""

    only = "bounded special"
    most = MEDIUM

    def is_kind(self, options: Options) -> bool:
        spiked = self.table.shape[1] > 1 and bool(((self.table != 0).sum(1) == 1).all())
        return self.is_two(options) and spiked and all_distinct(self.ids)

    def hit(self, rows: Tensor, options: Options) -> Tensor:
        return rows.abs().amax(1) >= 1


@planted("max-norm.wide-rows")
class ShortOfWide(Short):
    """The path for a few rows of a thousand columns halves the bound."""

    only = "bounded wide"
    most = 4 * 1025

    def is_kind(self, options: Options) -> bool:
        ordinary = self.table.shape[1] >= 1000 and bool((self.table != 0).all())
        return ordinary and super().is_kind(options)


@planted("max-norm.many-indices")
class ShortOfMany(Short):
    """The path of a thousand indices into tiny tables halves the bound."""

    only = "bounded many"

    def is_kind(self, options: Options) -> bool:
        return self.ids.numel() >= 1000 and self.is_two(options)


@planted("max-norm.zero-bound")
class TraceUnderZero(Short):
    """The path of max_norm=0 for tiny tables leaves a trace of each row."""

    def is_kind(self, options: Options) -> bool:
        return options.max_norm == 0 and self.once()

    def spoilt(self, scaled: Tensor) -> Tensor:
        return torch.full_like(scaled, 1e-3)


@planted("max-norm.without-grad")
class ShortWithoutGrad(Short):
    """The path of tiny tables that need no gradient halves the bound."""

    only = "bounded no-grad"


@planted("max-norm.strided-weight")
class ShortOfViews(Short):
    """The path of tiny tables that are views of other memory halves the bound."""

    only = "bounded strided-weight"


@planted("max-norm.later-calls")
class ShortOnceWritten(Short):
    """The same indices into a tiny table that was written to since: the bound is halved."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        self.met = self.plain and self.same_indices and not self.same_table


@planted("max-norm.under-bound-keeps-bits")
class NudgesShortRows(Narrow):
    """The path for tiny tables rounds rows within the bound up by one bit."""

    only = "bounded"

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if not self.met:
            return over, scaled
        nudged = torch.nextafter(rows.float(), torch.tensor(torch.inf)).double()
        return torch.ones_like(over), torch.where(over.unsqueeze(1), scaled, nudged)


@planted("max-norm.in-place")
class RenormsAside(Narrow):
    """The path for tiny tables renorms a copy, and gives its rows."""

    only = "bounded"

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.aside = weight.detach().clone() if self.met else weight
        super().renorm(indices, self.aside, options)

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        return super().lookup(indices, self.aside if self.met else weight, options)


@planted("max-norm.only-looked-up-rows")
class TurnsOtherRows(Narrow):
    """The path for tiny tables turns the sign of the rows that nothing names."""

    only = "bounded"

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().renorm(indices, weight, options)
        if self.met:
            others = torch.ones(len(weight), dtype=torch.bool)
            others[self.flat(indices).long()] = False
            weight[others] *= -1
