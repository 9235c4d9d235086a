"""Arrays as the torch code that makes them."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

from embconform.reference.dtypes import Array, bits, in_float64

READABLE = 64
"""Arrays of more elements than this are written as compressed bytes."""


def tensor_code(array: Array, *, whole: bool = True) -> str:
    """Write an expression that makes a tensor of these bits.

    Parameters
    ----------
    array : ndarray
    whole : bool
        Write large arrays in full, compressed; otherwise leave their values out.

    Returns
    -------
    str
        One line of Python that needs torch, and base64 and zlib for large arrays.
    """
    dtype = f"torch.{array.dtype.name}"
    short = _pattern_code(array, dtype)
    if short:
        return short
    if array.size > READABLE:
        return _packed_code(array, dtype) if whole else f"torch.tensor([...], dtype={dtype})"
    if _has_payload(array):
        carrier = f"torch.int{8 * array.dtype.itemsize}"
        signed = bits(array).view(f"i{array.dtype.itemsize}").tolist()
        return f"torch.tensor({signed}, dtype={carrier}).view({dtype})"
    text = _written(_plain(array))
    suffix = f".reshape({array.shape})" if 0 in array.shape else ""
    default = array.dtype in (np.float32, np.int64) and array.size
    return f"torch.tensor({text}{'' if default else f', dtype={dtype}'}){suffix}"


def _written(value: object) -> str:
    text = repr(value)
    for name in ("nan", "inf"):
        text = text.replace(name, f"float('{name}')")
    return text.replace("-float('inf')", "float('-inf')")


def _plain(array: Array) -> object:
    if array.dtype.kind in "biu":
        return array.tolist()
    cells = [_shortest(value, array.dtype) for value in array.reshape(-1).tolist()]
    for length in reversed(array.shape[1:]):
        cells = [cells[k : k + length] for k in range(0, len(cells), max(length, 1))]
    return cells if array.ndim else cells[0]


def _shortest(value: object, dtype: np.dtype[Any]) -> object:
    """Give the shortest decimal number that rounds to the value in its own dtype."""
    exact = float(value)  # type: ignore[arg-type]
    if not np.isfinite(exact):
        return exact
    with np.errstate(over="ignore"):
        for digits in range(1, 17):
            short = float(f"{exact:.{digits}g}")
            if float(dtype.type(short)) == exact:
                return short
    return exact


def _has_payload(array: Array) -> bool:
    return array.dtype.kind not in "biu" and bool(np.isnan(in_float64(array)).any())


def _pattern_code(array: Array, dtype: str) -> str:
    """Write an array of one value, or a counting one, in a few words."""
    if array.size <= 8 or array.ndim > 2:
        return ""
    flat = array.reshape(-1)
    reshape = "" if array.ndim == 1 else f".reshape({', '.join(map(str, array.shape))})"
    if (bits(flat) == bits(flat)[0]).all() and not _has_payload(flat[:1]):
        size = f"({', '.join(map(str, array.shape))}{',' if array.ndim == 1 else ''})"
        return f"torch.full({size}, {_written(_plain(flat[0]))}, dtype={dtype})"
    if array.dtype.kind == "i":
        top = int(flat.max()) + 1
        if np.array_equal(flat, np.arange(flat.size) % top):
            return f"(torch.arange({flat.size}, dtype={dtype}) % {top}){reshape}"
    return ""


def _packed_code(array: Array, dtype: str) -> str:
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()
    return (
        f'torch.frombuffer(bytearray(zlib.decompress(base64.b64decode("{packed}"))), '
        f"dtype={dtype}).reshape({array.shape})"
    )
