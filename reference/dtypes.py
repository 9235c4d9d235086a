"""Floating-point formats by name: precision, range, bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Format:
    """What error analysis needs to know of a floating-point format.

    Attributes
    ----------
    name : str
        NumPy's name of the dtype.
    dtype : numpy.dtype
    precision : int
        Number of significant bits, the hidden one included.
    unit_roundoff : float
        Half the distance from 1 to the next larger number, 2**-precision.
    smallest_subnormal, smallest_normal, largest : float
    """

    name: str
    dtype: np.dtype[Any]
    precision: int
    unit_roundoff: float
    smallest_subnormal: float
    smallest_normal: float
    largest: float


@cache
def format_of(name: str) -> Format:
    """Describe a floating-point dtype.

    Parameters
    ----------
    name : str
        ``float64``, ``float32``, ``float16`` or ``bfloat16``.

    Returns
    -------
    Format
    """
    dtype = np.dtype(name if name.startswith("float") else getattr(ml_dtypes, name))
    info: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    precision = int(info.nmant) + 1
    return Format(
        name=name,
        dtype=dtype,
        precision=precision,
        unit_roundoff=2.0**-precision,
        smallest_subnormal=float(info.smallest_subnormal),
        smallest_normal=float(info.smallest_normal),
        largest=float(info.max),
    )


def in_float64(array: Array) -> NDArray[np.float64]:
    """Convert to float64; NumPy warns of signalling NaNs, which become quiet.

    Parameters
    ----------
    array : ndarray of any floating-point dtype

    Returns
    -------
    ndarray of float64, of the same shape
    """
    with np.errstate(invalid="ignore"):
        return array.astype(np.float64)


def bits(array: Array) -> Array:
    """View an array as unsigned integers of the same width.

    Parameters
    ----------
    array : ndarray of any dtype of 1, 2, 4, 8 or 16 bytes

    Returns
    -------
    ndarray of unsigned integers
        Of the same shape; 16-byte items give two integers on the last axis.
    """
    if not array.flags.c_contiguous:
        array = array.copy()
    if array.dtype.itemsize <= 8:
        return array.view(f"u{array.dtype.itemsize}")
    return array.view("u8").reshape(*array.shape, -1)


def ulp(value: float, name: str) -> float:
    """Give the distance from a number to the next larger one in magnitude.

    Parameters
    ----------
    value : float
    name : str
        A dtype as :func:`format_of` takes.

    Returns
    -------
    float
        At least the smallest subnormal of the format.
    """
    form = format_of(name)
    if value == 0 or not np.isfinite(value):
        return form.smallest_subnormal
    exponent = int(np.floor(np.log2(abs(value))))
    return float(max(2.0 ** (exponent + 1 - form.precision), form.smallest_subnormal))
