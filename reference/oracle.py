"""What an embedding must return: lookup, padding and max_norm, in NumPy float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embconform.reference.bounds import exponent_roundings, norm_roundings, relative
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, Format, format_of, in_float64

F64 = NDArray[np.float64]
FLOAT32: Final = format_of("float32")
OWN: Final = format_of("float64").unit_roundoff
"""Of what is computed here."""
EPSILON: Final = 1e-7
"""Added to the norm by torch: aten/src/ATen/native/Embedding.cpp::embedding_renorm_cpu_."""


@dataclass(frozen=True, slots=True)
class Options:
    """The keyword arguments of :func:`torch.nn.functional.embedding`, with its defaults."""

    padding_idx: int | None = None
    max_norm: float | None = None
    norm_type: float = 2.0
    scale_grad_by_freq: bool = False
    sparse: bool = False

    def normalised(self, rows: int) -> Options:
        """Return the options with a negative padding_idx counted from the end."""
        if self.padding_idx is not None and self.padding_idx < 0:
            return replace(self, padding_idx=self.padding_idx + rows)
        return self


@dataclass(frozen=True)
class Bounded:
    """Rows after max_norm.

    Attributes
    ----------
    values : ndarray of float64, shape (n, d)
        The exact result in real arithmetic.
    bound : ndarray of float64, shape (n, d)
        How far a right result in the table's dtype may be from it.
    bound_float32 : ndarray of float64, shape (n, d)
        The same for a norm accumulated in float32 or better.
    kept : ndarray of bool, shape (n,)
        The norm certainly does not exceed the bound: the bits stay.
    over : ndarray of bool, shape (n,)
        The norm certainly exceeds the bound.
    open : ndarray of bool, shape (n,)
        Non-finite rows, and norms that over- or underflow: no value is required.
    open_float32 : ndarray of bool, shape (n,)
        The same for a norm accumulated in float32 or better.
    norm : ndarray of float64, shape (n,)
    """

    values: F64
    bound: F64
    bound_float32: F64
    kept: NDArray[np.bool_]
    over: NDArray[np.bool_]
    open: NDArray[np.bool_]
    open_float32: NDArray[np.bool_]
    norm: F64


@np.errstate(over="ignore", under="ignore", invalid="ignore")
def p_norm(rows: F64, p: float) -> tuple[F64, F64]:
    """Compute p-norms along the last axis.

    Parameters
    ----------
    rows : ndarray of float64, shape (n, d)
    p : float
        Positive, or infinity; 0 counts the components that are not 0, as
        :func:`torch.linalg.vector_norm` does.

    Returns
    -------
    norm : ndarray of float64, shape (n,)
    power_sum : ndarray of float64, shape (n,)
        The sum of |w|**p, which may overflow where the norm does not; the norm itself where p
        is infinite.
    """
    magnitudes = np.abs(rows)
    largest = magnitudes.max(axis=-1, initial=0.0)
    if np.isinf(p):
        return largest, largest
    if p == 0:
        count = np.count_nonzero(rows, axis=-1).astype(np.float64)
        return count, count
    power_sum = (magnitudes**p).sum(axis=-1)
    if np.all((power_sum > 1e-200) & (power_sum < 1e200)):
        return power_sum ** (1 / p), power_sum
    unit = np.where(largest > 0, largest, 1.0)
    scaled = ((magnitudes / unit[:, None]) ** p).sum(axis=-1)
    return unit * scaled ** (1 / p), power_sum


def _exactly_at_most(rows: F64, norm: F64, options: Options) -> NDArray[np.bool_]:
    """Tell which norms any right formula computes without rounding, and do not exceed max_norm."""
    if options.max_norm is None or options.norm_type not in (1.0, 2.0, np.inf):
        return np.zeros(norm.shape, np.bool_)
    lone = (rows != 0).sum(axis=-1) <= 1
    whole = np.zeros(norm.shape, np.bool_)
    for units in (rows, rows * 64):
        with np.errstate(over="ignore"):
            small = np.abs(units).sum(axis=-1) <= 64
        whole |= np.all(units == np.rint(units), axis=-1) & small
    return np.asarray(lone & whole & (norm <= options.max_norm))


@np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore")
def bound_rows(rows: Array, options: Options, profile: Profile, form: Format) -> Bounded:
    """Apply max_norm to rows, with the error that the table's dtype allows.

    Parameters
    ----------
    rows : ndarray, shape (n, d)
        In the table's dtype.
    options : Options
        With max_norm set, at least 0.
    profile : Profile
        torch adds 1e-7 to the norm, textbook does not.
    form : Format
        The table's dtype.

    Returns
    -------
    Bounded

    Notes
    -----
    scale = max_norm / (norm + eps): the norm's roundings, then those of max_norm and eps to the
    dtype, the addition, the division, the scale to the dtype and the product. All factors are
    positive, so the counts add up (:func:`embconform.reference.bounds.relative`). The values here
    are computed in float64 and suffer as many roundings of that. A norm, a bound and a scale that
    are subnormal in the dtype lose more: half a subnormal, relative to it. Where the norm is
    too close to max_norm to tell which side a right result falls on, the bound covers both.
    """
    assert options.max_norm is not None
    max_norm, p = options.max_norm, options.norm_type
    wide = in_float64(rows)
    width = rows.shape[-1]
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(wide).all(axis=-1))
    safe = np.where(finite[:, None], wide, 0.0)
    norm, power_sum = p_norm(safe, p)
    # a norm or its reciprocal is no number of the dtype
    unbounded = (norm > form.largest / 4) | ((norm > 0) & (norm < 2 / form.largest))
    underflow, unsafe = _range_trouble(safe, power_sum, p, form)
    underflow = underflow + _coarse(norm, max_norm, form)
    unsafe32 = _range_trouble(safe, power_sum, p, FLOAT32)[1] if form.precision < 24 else unsafe
    unsafe, unsafe32 = unsafe | unbounded, unsafe32 | unbounded
    counts = np.zeros_like(norm)
    positive = (power_sum > 0) & np.isfinite(power_sum)
    counts[positive] = exponent_roundings(power_sum[positive], p)
    counts += norm_roundings(width, p)
    u = form.unit_roundoff
    norm_error = relative(counts, u) + relative(counts, OWN) + underflow
    kept: NDArray[np.bool_]
    over: NDArray[np.bool_]
    kept = np.asarray(norm * (1 + norm_error) <= max_norm)
    over = np.asarray(norm > max_norm * (1 + norm_error) * (1 + u))
    kept = kept | _exactly_at_most(safe, norm, options) | (norm == 0)
    epsilon = EPSILON if profile is Profile.TORCH else 0.0
    scale = np.where(norm > 0, np.minimum(max_norm / (norm + epsilon), 1.0), 1.0)
    scale = np.where(kept, 1.0, scale)
    subnormal = np.where(
        (scale > 0) & (scale < form.smallest_normal), form.smallest_subnormal / scale, 0.0
    )
    underflow = underflow + subnormal
    own = relative(counts + 6, OWN) + underflow
    error = relative(counts + 6, u) + own
    u32 = min(u, 2.0**-24)
    error32 = relative(counts + 6, u32) + relative(3.0, u) + own
    keeps = np.expand_dims(kept, -1)
    values = safe * scale[:, None]
    either = np.where(np.expand_dims(kept | over, -1), 0.0, np.abs(safe - values))
    tiny = form.smallest_subnormal
    return Bounded(
        values=values,
        bound=np.where(keeps, 0.0, np.abs(values) * error[:, None] + tiny + either),
        bound_float32=np.where(keeps, 0.0, np.abs(values) * error32[:, None] + tiny + either),
        kept=kept & finite & ~unsafe,
        over=over & finite,
        open=~finite | (unsafe & (norm != 0)),
        open_float32=~finite | (unsafe32 & (norm != 0)),
        norm=norm,
    )


def _coarse(norm: F64, max_norm: float, form: Format) -> F64:
    """Give the relative error of subnormal roundings: of norm, 1e-7, their sum and the bound."""
    half, least = form.smallest_subnormal / 2, form.smallest_normal
    of_norms = np.where((norm > 0) & (norm < least), 3 * half / norm, 0.0)
    return of_norms + (half / max_norm if 0 < max_norm < least else 0.0)


def _range_trouble(
    rows: F64, power_sum: F64, p: float, form: Format
) -> tuple[F64, NDArray[np.bool_]]:
    """Give the relative error that underflow of |w|**p may add, and where no bound holds."""
    if np.isinf(p) or p == 0:
        return np.zeros_like(power_sum), np.zeros(power_sum.shape, np.bool_)
    lost = rows.shape[-1] * form.smallest_normal / power_sum / p
    lost = np.where(power_sum > 0, lost, 0.0)
    largest_term = np.abs(rows).max(axis=-1, initial=0.0)
    overflow = (power_sum > form.largest / 4) | (largest_term > form.largest / 4)
    underflow = (largest_term > 0) & ((power_sum == 0) | (lost > 2.0**-10))
    negligible = lost < form.unit_roundoff * 2.0**-10
    return np.where(negligible, 0.0, lost), overflow | underflow
