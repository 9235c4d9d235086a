"""Lay an array out in memory: a base buffer with guards around a strided view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from embconform.conformance.cases.case import Placed
from embconform.reference.dtypes import Array, bits

GUARD = 3
GUARD_VALUE = 77
"""Outside a small table as an index, and like none of its values; a person can read it."""

ALIGNED = 8
"""Elements that the rows of an aligned array are a multiple of apart."""


@dataclass(frozen=True)
class Laid:
    """A base buffer and the view of it that reads as the array.

    Attributes
    ----------
    base : ndarray, 1-D
    shape, strides : tuple of int
        In elements.
    offset : int
        Of the first element.
    """

    base: Array
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def view(self, base: Array) -> Array:
        """Read the array out of a base buffer of this layout."""
        size = base.dtype.itemsize
        strides = tuple(step * size for step in self.strides)
        return np.ndarray(self.shape, base.dtype, base, self.offset * size, strides)

    def outside_intact(self, base: Array) -> bool:
        """Tell whether everything in `base` that is not part of the view kept its bits."""
        changed = bits(base) != bits(self.base)
        if not changed.any():
            return True
        if changed.ndim > 1:
            changed = changed.any(axis=-1)
        inside = np.zeros(base.shape, np.bool_)
        self.view(inside)[...] = True
        return not bool((changed & ~inside).any())


SHARING = ("expanded", "spread", "broadcast", "windows", "pooled")
"""Layouts in which elements share memory, so that their values must be equal."""


def without_repeats(layout: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give the shape of the values that a layout repeats.

    Parameters
    ----------
    layout : str
    shape : tuple of int

    Returns
    -------
    tuple of int
        1 in place of repeated axes, or n + k - 1 in place of n windows of k; `shape` itself for a
        layout that repeats nothing.
    """
    if not shape or 0 in shape:
        return shape
    match layout:
        case "windows" if len(shape) > 1:
            return (*shape[:-2], shape[-2] + shape[-1] - 1)
        case "expanded":
            return (1, *shape[1:])
        case "pooled" if len(shape) > 1:
            return (*shape[:-2], 1, shape[-1])
        case "spread":
            return (*shape[:-1], 1)
        case "broadcast":
            return (1,) * len(shape)
    return shape


def repeated(layout: str, values: Array, shape: tuple[int, ...]) -> Array:
    """Repeat values as a layout does.

    Parameters
    ----------
    layout : str
    values : ndarray
        Of shape ``without_repeats(layout, shape)``.
    shape : tuple of int

    Returns
    -------
    ndarray, shape `shape`
        A view.
    """
    if layout == "windows" and values.ndim < len(shape):
        return sliding_window_view(values, shape[-1], axis=-1)
    return np.broadcast_to(values, shape)


def _strides(layout: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Give the strides of a layout in elements, and the number of elements that it spans."""
    if layout in SHARING:
        own = without_repeats(layout, shape)
        inner, span = _strides("contiguous", own)
        if len(own) < len(shape):
            return (*inner, inner[-1]), span
        return tuple(
            0 if a != b else step for a, b, step in zip(shape, own, inner, strict=True)
        ), span
    if layout == "transposed" and len(shape) >= 2:
        swapped, span = _strides("contiguous", (*shape[:-2], shape[-1], shape[-2]))
        return (*swapped[:-2], swapped[-1], swapped[-2]), span
    if layout == "swapped" and len(shape) >= 2:
        swapped, span = _strides("contiguous", (shape[1], shape[0], *shape[2:]))
        return (swapped[1], swapped[0], *swapped[2:]), span
    strides: list[int] = []
    step = 2 if layout in ("stepped", "paired") else 1
    for length in reversed(_padded(layout, shape)):
        strides.insert(0, step)
        step *= max(length, 1)
    return tuple(strides), step


def _padded(layout: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give the shape of an array of which a layout shows the first part."""
    if not shape:
        return shape
    more = {
        "sliced": 2,
        "columns": ALIGNED - shape[-1] % ALIGNED,
        "uneven": 1 + shape[-1] % 2,
    }
    if layout == "split" and len(shape) > 1:
        return (*shape[:-2], shape[-2] + 1, shape[-1])
    return (*shape[:-1], shape[-1] + more.get(layout, 0))


def lay_out(placed: Placed) -> Laid:
    """Lay values out in a buffer whose other elements hold a guard pattern.

    Parameters
    ----------
    placed : Placed
        Layouts: contiguous; transposed (the last two axes swapped in memory); swapped (the first
        two, as a batch that is not the first axis); sliced (rows two elements further apart than
        they are wide); stepped (every second element); offset (contiguous, but not at the start of
        the buffer); expanded, spread and broadcast (stride 0 on the first axis, on the last, on
        all: values along them must be equal); windows (rows that each start one element after the
        row before, as torch.Tensor.unfold gives); rows (contiguous, two rows into the buffer);
        columns (from the first element of the buffer, rows a multiple of eight elements apart: the
        first columns of an array, which are aligned); uneven (the same, rows an odd number apart);
        pooled (stride 0 on the last axis but one, as a sum over the tokens of a text gives);
        paired (stepped, but from the first element of the buffer: the first of each pair); split
        (a row left out after the last of each matrix, as the parts of a concatenation give).

    Returns
    -------
    Laid
    """
    values = placed.values
    strides, span = _strides(placed.layout, values.shape)
    rows = 2 * values.shape[-1] if values.ndim and values.shape[-1] else GUARD
    guard = GUARD
    if placed.layout in ("contiguous", "columns", "paired", "uneven"):
        guard = 0
    elif placed.layout == "rows":
        guard = rows
    base: Any = np.empty(span + 2 * guard, values.dtype)
    base[...] = GUARD_VALUE
    laid = Laid(base, values.shape, strides, guard)
    if values.size:
        laid.view(base)[...] = values
    return laid
