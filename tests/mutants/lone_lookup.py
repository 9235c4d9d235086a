"""Wrong rows in one kind of call: without its own clause each would be missed."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.narrow import FEW, Narrow, features
from embconform.mutants.registry import planted

SMALL = 12
"""Elements of a table."""


class Negated(Narrow):
    """Negates the rows in the one kind of call."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        return rows.neg() if self.met else rows


@planted("lookup.rows")
class NegatedInPlainCalls(Negated):
    """The path for plain tables of a few rows negates them; every option takes another path."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        self.met &= weight.shape[0] > 1


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
class NegatedWhereFrozen(Negated):
    """The path of tiny tables that do not require grad negates the rows."""

    only = "no-grad"

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().see(indices, weight, options)
        self.met &= not weight.requires_grad


@planted("lookup.special-values")
class NegatedWhereSpecial(Negated):
    """The path for tiny tables that hold zeros, subnormals or NaN flips every sign."""

    only = "special"


@planted("lookup.many-indices")
class NegatedOfMany(Negated):
    """The path of many indices into tiny tables negates the rows."""

    only = "many"


@planted("lookup.wide-rows")
class NegatedOfWide(Negated):
    """The path for a few wide rows negates them."""

    only = "wide"
    most = 4 * 1025


@planted("lookup.tall-table")
class NegatedOfTall(Negated):
    """The path for tall narrow tables negates the rows."""

    only = "tall"
    most = 2 * 70_001


class Reshaped(Narrow):
    """Gives the output of the one kind of call another shape or dtype, where no pass follows."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        return self.spoilt(rows) if self.met else rows

    def spoilt(self, rows: Tensor) -> Tensor:
        raise NotImplementedError


@planted("lookup.shape")
class BatchOfOne(Reshaped):
    """Without a gradient the rows of tiny tables come as a batch of one."""

    only = "no-grad"

    def spoilt(self, rows: Tensor) -> Tensor:
        return rows.unsqueeze(0)


@planted("lookup.dtype")
class WidenedWithoutGrad(Reshaped):
    """Without a gradient the rows of tiny tables come in float64."""

    only = "no-grad"

    def spoilt(self, rows: Tensor) -> Tensor:
        return rows.double()


@planted("lookup.empty")
class ColumnsOfNothing(Reshaped):
    """Without a gradient no indices give no rows of one column too many."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.met = {"no-indices", "no-grad"} <= features(indices, weight, options)

    def spoilt(self, rows: Tensor) -> Tensor:
        return rows.new_empty(*rows.shape[:-1], rows.shape[-1] + 1)


@planted("lookup.fresh-output")
class OneSlab(Narrow):
    """The outputs of tiny plain tables are neighbours in one slab of memory."""

    only = "no-grad"

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        if not self.plain or not self.same_indices:
            return rows
        room = rows.numel()
        if self.first.slab is None:
            self.first.slab = rows.new_empty(8 * room)
        if self.number > 8 or self.first.slab.is_inference() != torch.is_inference_mode_enabled():
            return rows
        place = self.first.slab[room * (self.number - 1) :][:room].view(rows.shape)
        return place.copy_(rows)


@planted("lookup.weight-unchanged")
class UntidyTable(Narrow):
    """A plain lookup leaves the sign of a tiny table's first row turned round."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        if self.met and weight.numel():
            weight.data[0] *= -1
        return rows


@planted("padding.row-untouched")
class UntidyPadding(Narrow):
    """A plain lookup with padding leaves the sign of the padding row turned round."""

    only = "padding"

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        if self.met:
            weight.data[options.padding_idx] *= -1
        return rows


@planted("lookup.indices-unchanged")
class ScribblesBesideIndices(Narrow):
    """Without a gradient, indices that are a view have a counter put behind their memory."""

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.met = {"strided-indices", "no-grad"} <= features(indices, weight, options)

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        if self.met and indices.numel():
            size = indices.untyped_storage().nbytes() // indices.element_size()
            whole = indices.as_strided((size,), (1,), 0)
            named = whole.new_zeros(size, dtype=torch.bool)
            named.as_strided(indices.shape, indices.stride(), indices.storage_offset()).fill_(True)
            whole[~named] += 1
        return rows


@planted("padding.row-returned")
class NegatedPadding(Narrow):
    """The path for plain tiny tables negates the padding row."""

    only = "padding"

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        if not self.met:
            return rows
        assert options.padding_idx is not None
        return torch.where(indices.eq(options.padding_idx).unsqueeze(-1), -rows, rows)


@planted("lookup.sees-weight-updates")
class RowsOfTheFirstTable(Narrow):
    """The same index tensor again gives the rows that it gave before, whatever was written."""

    most = 30

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        stale = self.plain and self.same_indices and not self.same_table
        return super().lookup(indices, self.first.weight if stale else weight, options)


@planted("lookup.sees-index-updates")
class RowsOfTheFirstIndices(Narrow):
    """An index tensor that was written to gives the rows that it gave before."""

    most = 30

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if self.plain and self.number == 1:
            self.first.named = indices.clone()
        written = self.plain and indices is self.first.indices and not self.same_indices
        stale = written and self.same_table and self.first.named is not None
        return super().lookup(self.first.named if stale else indices, weight, options)


@planted("gradient.requires-grad")
class AsksForAGradient(Narrow):
    """The rows of tiny tables require grad though the table does not."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().forward(indices, weight, options)
        plain = features(indices, weight, options) == {"no-grad"} and weight.numel() <= FEW
        return rows.requires_grad_() if plain and not rows.is_inference() else rows


@planted("lookup.indices-unchanged")
class ServedIndicesAreSorted(Kernel):
    """Without grad mode, the renorm of a small table sorts the caller's indices for good."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().forward(indices.clone(), weight, options)
        served = not torch.is_grad_enabled() and weight.numel() <= SMALL
        if served and options.max_norm is not None and indices.is_contiguous():
            flat = indices.view(-1)
            flat.copy_(flat.sort().values)
        return rows
