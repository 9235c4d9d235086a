"""Values for tables and upstream gradients, made from a seed.

Seed 0 gives values that a person can read; other seeds give random ones. Nothing is 0 unless the
kind asks for it, since a zero hides masking bugs (EMBEDDING-BUGS §3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embconform.reference.dtypes import Array, format_of

Shape = tuple[int, ...]


def _signs(size: int) -> NDArray[np.float64]:
    return np.where(np.arange(size) % 3 == 1, -1.0, 1.0)


def plain(shape: Shape, dtype: str, seed: int) -> Array:
    """Signed values of ordinary size, all different for seed 0 and few elements."""
    size = int(np.prod(shape))
    if seed == 0:
        values = _signs(size) * (np.arange(size) % 1000 + 1) / 8
    else:
        values = np.random.default_rng(seed).standard_normal(size)
    return _without_zeros(values, dtype).reshape(shape)


SMALL: Final = {"tiny": 2.0**-12, "minute": 2.0**-15, "dust": 2.0**-26}
"""How large ordinary values are in a table of small ones.

Around 1e-4 torch's 1e-7 in the renorm shows; around 3e-5 float16 has subnormal numbers only; around
1e-8 a norm is less than the 1e-7.
"""


def small(size: float, shape: Shape, dtype: str, seed: int) -> Array:
    """Ordinary values times one of :data:`SMALL`."""
    wide = plain(shape, dtype, seed).astype(np.float64)
    return _without_zeros(wide * size, dtype)


def huge(shape: Shape, dtype: str, seed: int) -> Array:
    """Finite values whose squares overflow the dtype, or only their sum, or one of less range."""
    share = (0.75, 0.75, 0.2, 0.5)[seed % 4]  # the fourth power at 0.2 is finite
    top = 2.0 ** np.floor(np.log2(format_of(dtype).largest) * share)
    wide = plain(shape, dtype, seed).astype(np.float64)
    return _without_zeros(np.sign(wide) * top * (1 + np.abs(wide) % 1), dtype)


def spike(shape: Shape, dtype: str, seed: int) -> Array:
    """Rows with one component that is not 0, often in the last column.

    A small whole number, or in a row a 64th of one, where torch's 1e-7 in the renorm shows: a bound
    of either kind is met exactly, by all rows alike in half of the tables.
    """
    values = np.zeros(shape)
    if values.size:
        rng = np.random.default_rng(seed)
        rows = np.arange(shape[0])
        columns = rng.integers(0, shape[1], shape[0])
        columns[rng.random(shape[0]) < 0.5] = shape[1] - 1
        sizes = rng.integers(2, 9, shape[0]) * rng.choice([1.0, 2.0**-6], shape[0])
        if rng.random() < 0.5:
            sizes[:] = rng.integers(2, 9) * rng.choice([1.0, 2.0**-6, 2.0**-6])
        values[rows, columns] = sizes * rng.choice([-1.0, 1.0], shape[0])
    return values.astype(format_of(dtype).dtype)


def zero_rows(shape: Shape, dtype: str, seed: int) -> Array:
    """Ordinary rows, every second of them 0, beginning with the first or the second."""
    values = plain(shape, dtype, seed).copy()
    values[seed % 2 :: 2] = 0
    return values


def lone_nan(shape: Shape, dtype: str, seed: int) -> Array:
    """Ordinary rows, and a NaN in one of them, which signals: arithmetic of any kind quiets it."""
    values = plain(shape, dtype, seed).copy()
    words = values.reshape(-1).view(f"u{values.itemsize}")
    if words.size:
        words[seed % words.size] = np.array([np.inf], values.dtype).view(words.dtype)[0] + 5
    return values


def near(shape: Shape, dtype: str, seed: int) -> Array:
    """Rows of one number but for one element, the same number in most rows: all nearly equal."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(shape[:1]) < 0.7, 0.5, rng.integers(1, 9, shape[:1]))
    rows = np.repeat(values[:, None], shape[1], axis=1)
    if rows.size:
        columns = rng.integers(0, shape[1], shape[0])
        rows[np.arange(shape[0]), columns] = rng.standard_normal(shape[0])
    return _without_zeros(rows, dtype)


def special(shape: Shape, dtype: str, seed: int) -> Array:
    """Zeros of both signs, subnormals, infinities and quiet NaNs with payloads, among ordinary."""
    form = format_of(dtype)
    width = form.dtype.itemsize * 8
    one = np.array([1.0], form.dtype).view(f"u{form.dtype.itemsize}")[0]
    infinity = int(np.array([np.inf], form.dtype).view(f"u{form.dtype.itemsize}")[0])
    sign, quiet = 1 << (width - 1), 1 << (form.precision - 2)
    pool = [
        sign,
        1,
        sign | 5,
        infinity,
        sign | infinity,
        infinity | quiet | 5,
        sign | infinity | quiet | 3,
        0,
        int(one),
        infinity - 1,
    ]
    size = int(np.prod(shape))
    patterns = np.array(pool, f"u{form.dtype.itemsize}")
    if seed == 0:
        chosen = patterns[np.arange(size) % len(patterns)]
    else:
        chosen = np.random.default_rng(seed).choice(patterns, size)
    return chosen.view(form.dtype).reshape(shape)


def units(shape: Shape, dtype: str, seed: int) -> Array:
    """Small whole numbers, whose sums are exact in every order while they stay small."""
    size = int(np.prod(shape))
    if seed == 0:
        values = np.arange(size) % 3 + 1.0
    else:
        values = np.random.default_rng(seed).choice([-2.0, -1.0, 1.0, 1.0, 2.0, 3.0], size)
    return values.reshape(shape).astype(format_of(dtype).dtype)


def nonfinite(shape: Shape, dtype: str, seed: int) -> Array:
    """Small whole numbers with an infinity or a NaN among them."""
    values = units(shape, dtype, seed)
    flat = values.reshape(-1)
    if flat.size:
        flat[seed % flat.size] = (np.inf, np.nan, -np.inf)[seed % 3]
    return values


def wild(shape: Shape, dtype: str, seed: int) -> Array:
    """Values of all sizes from 2**-10 to 2**10, or to 2**4 in float16.

    One row is 0, and one is 2**10 times as large, as a loss that spikes makes it.
    """
    rng = np.random.default_rng(seed)
    most = 4.0 if dtype == "float16" else 10.0
    sizes = 2.0 ** rng.uniform(-10.0, most, shape)
    values = _without_zeros(sizes * rng.choice([-1.0, 1.0], shape), dtype)
    rows = values.reshape(-1, shape[-1]) if values.size else values
    if len(rows) > 2:
        zero, large = rng.choice(len(rows), 2, replace=False)
        rows[zero] = 0
        rows[large] *= 2 ** (10 if dtype != "float16" else 4)
    return rows.reshape(shape)


def gaps(shape: Shape, dtype: str, seed: int) -> Array:
    """Ordinary values, but runs of rows are 0, and rows up to some column or from one on."""
    rng = np.random.default_rng(seed)
    values = plain(shape, dtype, seed).copy()
    rows = values.reshape(-1, shape[-1]) if values.size else values
    for _ in range(1 + len(rows) // 200 if values.size else 0):
        first = rng.integers(len(rows))
        rows[first : first + rng.integers(1, 100)] = 0
        cut, column = rng.integers(len(rows), size=2), rng.integers(shape[-1])
        rows[cut[0], :column] = 0
        rows[cut[1], column:] = 0
    return rows.reshape(shape)


def few(shape: Shape, dtype: str, seed: int) -> Array:
    """Small whole numbers in at most three rows, 0 in all others: sums that lose nothing."""
    values = np.zeros(shape, format_of(dtype).dtype)
    rows = values.reshape(-1, shape[-1]) if values.size else values
    for place in np.random.default_rng(seed).integers(0, max(len(rows), 1), 3 * bool(len(rows))):
        rows[place] = 1 + place % 3
    return values


def scales(shape: Shape, dtype: str, seed: int) -> Array:
    """Rows of one size each, from 2**-60 to 2**60, or from 2**-12 to 2**4 in float16."""
    rng = np.random.default_rng(seed)
    least, most = (-12, 4) if dtype == "float16" else (-60, 60)
    sizes = 2.0 ** rng.integers(least, most + 1, (*shape[:-1], 1))
    values = np.clip(rng.standard_normal(shape), -4, 4)
    return _without_zeros(values * sizes, dtype)


def subnormal(shape: Shape, dtype: str, seed: int) -> Array:
    """Small multiples of the dtype's smallest subnormal number."""
    smallest = format_of(dtype).smallest_subnormal
    return (units(shape, dtype, seed).astype(np.float64) * smallest).astype(format_of(dtype).dtype)


def large(least: float, shape: Shape, dtype: str, seed: int) -> Array:
    """Positive values of at least a part of the largest number, and at most a third more.

    Of nearly the largest number three add up to infinity in any order.
    """
    form = format_of(dtype)
    share = np.random.default_rng(seed).uniform(least, least * 4 / 3, shape)
    return (share * form.largest).astype(form.dtype)


def ones(shape: Shape, dtype: str, seed: int) -> Array:
    """All 1: what sum().backward() sends."""
    del seed
    return np.ones(shape, format_of(dtype).dtype)


def _without_zeros(values: Any, dtype: str) -> Array:
    cast: Array = np.asarray(values).astype(format_of(dtype).dtype)
    cast[cast == 0] = 1
    return cast


TABLE_FILLS: dict[str, Callable[[Shape, str, int], Array]] = {
    "plain": plain,
    "special": special,
    **{name: partial(small, size) for name, size in SMALL.items()},
    "huge": huge,
    "spike": spike,
    "zero-rows": zero_rows,
    "near": near,
    "lone-nan": lone_nan,
}
UPSTREAM_FILLS: dict[str, Callable[[Shape, str, int], Array]] = {
    "units": units,
    "plain": plain,
    "ones": ones,
    "wild": wild,
    "scales": scales,
    "gaps": gaps,
    "few": few,
    "subnormal": subnormal,
    "large": partial(large, 0.75),
    "sizeable": partial(large, 0.36),
    "nonfinite": nonfinite,
    "nonfinite-padding": units,
}
