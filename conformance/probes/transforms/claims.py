"""Lookups under transforms: what is right for them in torch-free arithmetic, and claims of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embconform.conformance.finding import Finding
from embconform.conformance.probes.claims import Claim, Returned, compare
from embconform.reference.bounds import gamma
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, format_of
from embconform.reference.oracle import Options, bound_rows

F64 = NDArray[np.float64]
_FLOAT32: Final = format_of("float32")
FEW: Final = 24
"""Indices that a message lists."""


@dataclass(frozen=True, eq=False)
class Lookup:
    """Indices, a table and options; :meth:`rows` and :meth:`gradient` are for judges only.

    Attributes
    ----------
    ids : ndarray of int64
    table : ndarray of float32, or of float64 where nothing is summed
        Of shape (V, D); no zero rows.
    options : dict
        Keyword arguments of the embedding.
    profile : Profile
    """

    ids: Array
    table: Array
    options: dict[str, Any]
    profile: Profile

    def __str__(self) -> str:
        """Name it in a message."""
        ids = self.ids.tolist() if self.ids.size <= FEW else f"{self.ids.shape}, drawn"
        words = [f"indices {ids}", f"a table of {len(self.table)} rows"]
        return ", ".join([*words, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output."""
        return (*self.ids.shape, self.table.shape[1])

    @property
    def padded(self) -> NDArray[np.bool_]:
        """Which indices are padding."""
        padding = self.options.get("padding_idx")
        if padding is None:
            return np.zeros(self.ids.shape, np.bool_)
        return np.asarray(self.ids == padding % len(self.table))

    def into(self, table: Array) -> Lookup:
        """Look the same indices up in another table."""
        return replace(self, table=table)

    def rows(self) -> Array:
        """Look up."""
        found = self.table[self.ids]
        if self.profile is Profile.TEXTBOOK:
            found = np.where(self.padded[..., None], found.dtype.type(0), found)
        return np.asarray(found)

    def gradient(self, upstream: Array) -> tuple[F64, F64]:
        """Give the gradient of the table and how far a right one may be from it.

        Upstream gradients are whole numbers whose sums are exact in float32, so only a division
        by counts can round.
        """
        height, width = self.table.shape
        flat, terms = self.ids.reshape(-1), upstream.reshape(-1, width).astype(np.float64)
        total, size = np.zeros((2, height, width))
        kept = ~self.padded.reshape(-1)
        np.add.at(total, flat[kept], terms[kept])
        if not self.options.get("scale_grad_by_freq"):
            return total, size
        counts = np.bincount(flat, minlength=height).clip(1)[:, None]
        np.add.at(size, flat[kept], np.abs(terms[kept]))
        return total / counts, size / counts * gamma(flat.size + 3, _FLOAT32.unit_roundoff)


Lookups = Lookup | Sequence["Lookups"]
"""A lookup, or the members of a vmap over lookups, of which each may be a vmap itself."""


def _rows(lookups: Lookups) -> Array:
    if isinstance(lookups, Lookup):
        return lookups.rows()
    return np.stack([_rows(member) for member in lookups])


def _gradients(lookups: Lookups, upstream: Array) -> tuple[F64, F64]:
    if isinstance(lookups, Lookup):
        return lookups.gradient(upstream)
    each = [_gradients(member, terms) for member, terms in zip(lookups, upstream, strict=True)]
    exact, bound = (np.stack(part) for part in zip(*each, strict=True))
    return exact, bound


@dataclass(frozen=True, eq=False)
class Rows(Claim):
    """The output of lookups."""

    what: str
    got: Returned
    lookups: Lookups

    def judge(self) -> Finding | None:
        """Compare with the rows of the tables, bit for bit."""
        return compare(self.what, self.got, _rows(self.lookups))


@dataclass(frozen=True, eq=False)
class GradientOf(Claim):
    """The gradient of lookups' tables for an upstream gradient.

    Attributes
    ----------
    what : str
    got : Returned
    lookups : Lookup or sequence
    upstream : ndarray of float32
        Whole numbers, of the shape of the output, whose sums are exact.
    shared : bool
        The members have one table, whose gradient sums theirs.
    """

    what: str
    got: Returned
    lookups: Lookups
    upstream: Array
    shared: bool = False

    def judge(self) -> Finding | None:
        """Compare with the exact gradient within its bound."""
        exact, bound = _gradients(self.lookups, self.upstream)
        if self.shared:
            exact, bound = exact.sum(0), bound.sum(0) * 2  # twice, for the sum over the members
        return compare(self.what, self.got, exact, bound)


@dataclass(frozen=True, eq=False)
class WideGradient(Claim):
    """The gradient of a table of any dtype, in which nothing rounds: sums and shares are exact.

    Attributes
    ----------
    what : str
    got : Returned
    lookup : Lookup
    upstream : ndarray of float64
        Whole numbers, of the shape of the output; rows come as often as a power of two says.
    dtype : str
        Torch's name of the table's dtype without its prefix.
    """

    what: str
    got: Returned
    lookup: Lookup
    upstream: Array
    dtype: str

    def judge(self) -> Finding | None:
        """Compare dtype, shape and values."""
        exact, _ = self.lookup.gradient(self.upstream)
        values = None if self.got.values is None else self.got.values.astype(np.float64)
        got = replace(self.got, values=values)
        return compare(self.what, got, exact, np.zeros(exact.shape), self.dtype)


@dataclass(frozen=True, eq=False)
class TiedGradient(Claim):
    """The gradient of a table that a lookup and a linear layer without bias share.

    Attributes
    ----------
    what : str
    got : Returned
    lookup : Lookup
    upstream : ndarray of float32
        The lookup's upstream gradient, of small whole numbers.
    hidden : ndarray of float32
        What the layer is given, of shape (N, D), small whole numbers.
    above : ndarray of float32
        The layer's upstream gradient, of shape (N, V), small whole numbers.
    """

    what: str
    got: Returned
    lookup: Lookup
    upstream: Array
    hidden: Array
    above: Array

    def judge(self) -> Finding | None:
        """Compare with the sum; of a padding row only the lookup's part is left out."""
        exact, bound = self.lookup.gradient(self.upstream)
        layer = self.above.T.astype(np.float64) @ self.hidden.astype(np.float64)
        total = exact + layer
        slack = np.where(bound > 0, bound + np.abs(total) * gamma(2, _FLOAT32.unit_roundoff), 0.0)
        return compare(self.what, self.got, total, slack)


@dataclass(frozen=True, eq=False)
class Tangent(Claim):
    """The derivative of a lookup's output for a direction of the table."""

    what: str
    got: Returned
    lookup: Lookup
    direction: Array

    def judge(self) -> Finding | None:
        """Compare with the rows of the direction; zeros at padding are right, too."""
        got, exact = self.got, self.lookup.into(self.direction).rows()
        if got.values is not None and got.shape == exact.shape:
            zero = ~got.values.any(axis=-1) & self.lookup.padded
            values, exact = (
                np.where(zero[..., None], a.dtype.type(0), a) for a in (got.values, exact)
            )
            got = replace(got, values=values)
        return compare(self.what, got, exact)


@dataclass(frozen=True, eq=False)
class Jacobian(Claim):
    """The derivative of a lookup's output by every element of its table."""

    what: str
    got: Returned
    lookup: Lookup

    def judge(self) -> Finding | None:
        """Demand one where an output copies an element, and zero elsewhere."""
        height, width = self.lookup.table.shape
        rows = np.eye(height)[self.lookup.ids] * ~self.lookup.padded[..., None]
        exact = np.einsum("...v,de->...dve", rows, np.eye(width))
        return compare(self.what, self.got, exact, np.zeros(exact.shape))


@dataclass(frozen=True, eq=False)
class Bounded(Claim):
    """The output of a lookup under max_norm, and the table after it."""

    what: str
    output: Returned
    after: Returned
    lookup: Lookup

    def judge(self) -> Finding | None:
        """Compare both within the bounds of a right norm."""
        lookup = self.lookup
        options = Options(**lookup.options)
        limit = bound_rows(lookup.table, options, lookup.profile, _FLOAT32)
        values, bound = limit.values[lookup.ids], limit.bound[lookup.ids]
        whole, slack = lookup.table.astype(np.float64), np.zeros(lookup.table.shape)
        if lookup.profile is Profile.TEXTBOOK:
            values, bound = (np.where(lookup.padded[..., None], 0.0, a) for a in (values, bound))
        else:
            named = np.unique(lookup.ids)
            whole[named], slack[named] = limit.values[named], limit.bound[named]
        found = compare(f"the output of {self.what}", self.output, values, bound)
        return found or compare(f"the table after {self.what}", self.after, whole, slack)
