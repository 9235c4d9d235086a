"""The gradient of an embedding, exact or in float64, with the error that summation allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embconform.reference.bounds import (
    exponent_roundings,
    is_exact_sum,
    norm_roundings,
    relative,
    summation,
)
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, Format, format_of
from embconform.reference.oracle import F64, OWN, Bounded, Options, bound_rows

SCALE_ROUNDINGS = 4.0
"""The count's reciprocal, its rounding to the dtype, the product, and the result's rounding."""
WIDER = 2.0**-11
"""What a rounding in a wider format is of one in the table's, at most: x87's to float64's."""


@dataclass(frozen=True)
class Gradient:
    """The exact gradient of a table.

    Attributes
    ----------
    values : ndarray of float64, shape (V, d)
    bound : ndarray of float64, shape (V, d)
        Error allowed when accumulated in the table's dtype, in any order.
    bound_float32 : ndarray of float64, shape (V, d)
        Error allowed when accumulated in float32 or better and rounded once.
    open : ndarray of bool, shape (V, d)
        Where no value is required.
    counts : ndarray of int64, shape (V,)
        How many indices name each row, padding left out.
    magnitudes : ndarray of float64, shape (V, d)
        The sums of the terms' absolute values, which no partial sum exceeds.
    special : ndarray of float64, shape (V, d)
        The infinity or NaN that terms which are no numbers add up to in any order; 0 elsewhere.
    """

    values: F64
    bound: F64
    bound_float32: F64
    open: NDArray[np.bool_]
    counts: NDArray[np.int64]
    magnitudes: F64
    special: F64


def segment_sums(indices: NDArray[np.int64], terms: F64, rows: int, *, exact: bool) -> F64:
    """Sum terms by row.

    Parameters
    ----------
    indices : ndarray of int64, shape (n,)
        In 0..rows-1.
    terms : ndarray of float64, shape (n, d)
    rows : int
    exact : bool
        Round each sum once only (:func:`math.fsum`).

    Returns
    -------
    ndarray of float64, shape (rows, d)
    """
    sums = np.zeros((rows, terms.shape[1]))
    if not exact or not len(indices):
        np.add.at(sums, indices, terms)
        return sums
    order = np.argsort(indices, kind="stable")
    named, starts = np.unique(indices[order], return_index=True)
    add = math.fsum if np.isfinite(terms).all() else _rounded_once
    for row, part in zip(named, np.split(terms[order], starts[1:]), strict=True):
        sums[row] = [add(column) for column in part.T]
    return sums


def _rounded_once(terms: F64) -> float:
    if np.isfinite(terms).all():
        return math.fsum(terms)
    with np.errstate(invalid="ignore"):  # infinities of both signs
        return float(terms.sum())


def gradient(
    table: Array,
    indices: NDArray[np.int64],
    upstream: Array,
    *,
    options: Options,
    profile: Profile,
    form: Format,
) -> Gradient:
    """Differentiate a lookup.

    Parameters
    ----------
    table : ndarray, shape (V, d)
        As it was when the lookup was made.
    indices : ndarray of int64, shape (n,)
        In 0..V-1.
    upstream : ndarray, shape (n, d)
        In the table's dtype.
    options : Options
        With padding_idx not negative.
    profile : Profile
    form : Format
        The table's dtype.

    Returns
    -------
    Gradient
    """
    rows = table.shape[0]
    keep = np.ones(len(indices), np.bool_)
    if options.padding_idx is not None:
        keep = indices != options.padding_idx
    ids, terms = indices[keep], upstream[keep].astype(np.float64)
    counts = np.bincount(ids, minlength=rows).astype(np.int64)
    if profile is Profile.TEXTBOOK and options.max_norm is not None:
        through = _through_scale(table[ids], terms, options, form)
    else:
        through = _Terms(terms, np.abs(terms), np.zeros_like(terms), np.zeros(terms.shape, bool))
    return _summed(through, ids, counts, options=options, form=form)


@dataclass(frozen=True)
class _Terms:
    values: F64
    magnitudes: F64
    errors: F64
    open: NDArray[np.bool_]


def _summed(
    terms: _Terms,
    ids: NDArray[np.int64],
    counts: NDArray[np.int64],
    *,
    options: Options,
    form: Format,
) -> Gradient:
    exact, rows = form.name == "float64", len(counts)
    finite = np.isfinite(terms.values)
    special = _special(terms, finite, ids, rows)
    terms = replace(
        terms,
        values=np.where(finite, terms.values, 0.0),
        magnitudes=np.where(finite, terms.magnitudes, 0.0),
        errors=np.where(finite, terms.errors, 0.0),
        open=terms.open | ~finite,
    )
    values = segment_sums(ids, terms.values, rows, exact=exact)
    magnitudes = segment_sums(ids, terms.magnitudes, rows, exact=False)
    errors = segment_sums(ids, terms.errors, rows, exact=False)
    opened = segment_sums(ids, terms.open.astype(np.float64), rows, exact=False) > 0
    scaled = options.scale_grad_by_freq
    if scaled:
        divisor = np.maximum(counts, 1)[:, None].astype(np.float64)
        values, magnitudes, errors = values / divisor, magnitudes / divisor, errors / divisor
    roundings = np.where(counts > 1, SCALE_ROUNDINGS, 0.0)[:, None] if scaled else 0.0
    u, n = form.unit_roundoff, _added(terms.values, ids, counts)
    half_ulp, rounds = u * np.abs(values), (n > 1) | (errors > 0)
    rounded = np.where(rounds, half_ulp, 0.0)
    # the last addition rounds the sum; what went through a scale or a norm is rounded once more
    again = rounded if scaled else np.where(errors > 0, rounded, 0.0)
    own = summation(n, magnitudes, u * (1 + WIDER), roundings) + again + errors
    u32 = min(u, format_of("float32").unit_roundoff)
    divides = rounds | (counts > 1)[:, None] if scaled else rounds  # a lone term is divided, too
    wide = summation(n, magnitudes, u32, roundings) + np.where(divides, half_ulp, 0.0) + errors
    own = np.maximum(own, wide)
    overflow = magnitudes > form.largest / 2
    if not scaled and not errors.any():
        own = np.where(is_exact_sum(terms.values, magnitudes, form.precision), 0.0, own)
        exact32 = is_exact_sum(terms.values, magnitudes, max(24, form.precision))
        wide = np.where(exact32, rounded, wide)
        wide = np.minimum(own, wide)
    if scaled:  # each share may be rounded to a subnormal number, and is where entries are kept
        each = form.smallest_subnormal * np.maximum(n, 1.0)
        own = own + each
        wide = wide + (each if options.sparse else form.smallest_subnormal)
    special[overflow] = 0
    if not scaled and not options.sparse:  # the entries of a sparse gradient are not summed
        beyond = (np.abs(values) == magnitudes) & (magnitudes >= 2 * form.largest) & (errors == 0)
        special[beyond] = np.copysign(np.inf, values[beyond])
    return Gradient(values, own, wide, opened | overflow, counts, magnitudes, special)


def _added(terms: F64, ids: NDArray[np.int64], counts: NDArray[np.int64]) -> F64:
    """Count the terms that a sum may be rounded for: all but zeros, shape (V, d) or (V, 1)."""
    nonzero = terms != 0
    if nonzero.all():
        return counts[:, None].astype(np.float64)
    return segment_sums(ids, nonzero.astype(np.float64), len(counts), exact=False)


@np.errstate(invalid="ignore")  # infinities of both signs
def _special(terms: _Terms, finite: NDArray[np.bool_], ids: NDArray[np.int64], rows: int) -> F64:
    """Add up the terms that are no numbers, where a value is required."""
    if finite.all():
        return np.zeros((rows, finite.shape[1]))
    special = segment_sums(ids, np.where(finite, 0.0, terms.values), rows, exact=False)
    special[segment_sums(ids, terms.open.astype(np.float64), rows, exact=False) > 0] = 0
    return special


@np.errstate(all="ignore")  # of a norm's square: the slope there is too small or large to be judged
def _through_scale(rows: Array, upstream: F64, options: Options, form: Format) -> _Terms:
    """Differentiate w * max_norm / norm(w) where the norm exceeds max_norm, w elsewhere.

    At the kink, where the norm equals max_norm, both are subgradients and no value is required.
    With s = m / n and A = sum_j g_j w_j the gradient is s g_i - m A sgn(w_i) |w_i|^(p-1) / n^(p+1);
    the error bound takes both terms in absolute value times their roundings.
    """
    assert options.max_norm is not None
    p, max_norm = options.norm_type, options.max_norm
    bounded = bound_rows(rows, options, Profile.TEXTBOOK, form)
    wide = np.where(bounded.open[:, None], 0.0, rows.astype(np.float64))
    norm = np.where(bounded.norm > 0, bounded.norm, 1.0)[:, None]
    magnitude = np.abs(wide)
    scale = max_norm / norm
    if np.isinf(p):
        largest = magnitude == norm
        shape, tied = largest / norm**2, largest.sum(axis=-1) != 1
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            powers = np.where(magnitude > 0, magnitude ** (p - 1), 0.0)
            shape = powers / norm ** (p - 1) / norm**2  # norm ** (p + 1) may overflow
        tied = (magnitude == 0).any(axis=-1) if p < 1 else np.zeros(len(norm), np.bool_)
    finite = np.where(np.isfinite(upstream), upstream, 0.0)
    products = finite * wide
    first = scale * finite
    second = max_norm * products.sum(axis=-1, keepdims=True) * np.sign(wide) * shape
    second_size = max_norm * np.abs(products).sum(axis=-1, keepdims=True) * shape
    counts = _scale_roundings(rows.shape[-1], p, norm)
    error = np.zeros_like(first)
    for u in (form.unit_roundoff, OWN):  # of the target, and of this function
        error += relative(counts[0], u) * np.abs(first) + relative(counts[1], u) * second_size
    over = (bounded.over & ~bounded.open)[:, None]
    values = np.where(over, first - second, upstream)
    unclear = ~bounded.kept & (~bounded.over | bounded.open | tied)
    square = norm[:, 0] ** 2
    for slope in (max_norm / square, 1 / square):  # the derivative of max_norm / norm, or a part
        unclear |= (max_norm > 0) & ((slope < form.smallest_normal) | (slope > form.largest / 4))
    unclear |= max_norm * np.abs(products).sum(axis=-1) > form.largest / 4  # another part
    unclear |= (bounded.norm == max_norm) & (max_norm > 0)  # the kink
    unclear |= ~np.isfinite(upstream).all(axis=-1)  # it reaches every column through the scale
    return _Terms(
        values,
        np.where(over, np.abs(first) + second_size, np.abs(upstream)),
        np.where(over, error, 0.0),
        np.broadcast_to(unclear[:, None], values.shape),
    )


def _scale_roundings(width: int, p: float, norm: F64) -> tuple[F64, F64]:
    """Count the roundings of both terms: norm, powers, division, products and their sum."""
    power = 1.0 if np.isinf(p) else p + 1
    exponent = exponent_roundings(norm, p) * (power - 1)  # of a norm, whose p-th power is the sum
    roundings = norm_roundings(width, p) + exponent
    return roundings + 8, width + (power + 1) * roundings + 24


def double_backward(
    direction: Array, indices: NDArray[np.int64], options: Options, form: Format
) -> tuple[F64, F64]:
    """Differentiate <gradient, direction> with respect to the upstream gradient.

    Parameters
    ----------
    direction : ndarray, shape (V, d)
    indices : ndarray of int64, shape (n,)
    options : Options
        With padding_idx not negative.
    form : Format

    Returns
    -------
    values, bound : ndarray of float64, shape (n, d)
        The rows of `direction`, 0 at padding_idx, divided by the count under scale_grad_by_freq.
    """
    values = direction.astype(np.float64)[indices]
    if options.padding_idx is not None:
        values[indices == options.padding_idx] = 0.0
    if not options.scale_grad_by_freq:
        return values, np.zeros_like(values)
    counts = np.bincount(indices, minlength=len(direction))[indices]
    values = values / np.maximum(counts, 1)[:, None]
    bound = relative(SCALE_ROUNDINGS, form.unit_roundoff) * np.abs(values)
    return values, bound + form.smallest_subnormal


__all__ = ["Bounded", "Gradient", "double_backward", "gradient", "segment_sums"]
