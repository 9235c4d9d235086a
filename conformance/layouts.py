"""Lay an array out in memory: a base buffer with guards around a strided view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embconform.conformance.case import Placed
from embconform.reference.dtypes import Array, bits

GUARD = 3


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


def _strides(layout: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Give the strides of a layout in elements, and the number of elements that it spans."""
    if layout == "expanded" and shape:
        inner, span = _strides("contiguous", shape[1:])
        return (0, *inner), span
    if layout == "transposed" and len(shape) >= 2:
        swapped, span = _strides("contiguous", (*shape[:-2], shape[-1], shape[-2]))
        return (*swapped[:-2], swapped[-1], swapped[-2]), span
    padded = list(shape)
    factor = 1
    if layout == "sliced" and shape:
        padded[-1] += 2
    if layout == "stepped":
        factor = 2
    strides: list[int] = []
    step = factor
    for length in reversed(padded):
        strides.insert(0, step)
        step *= max(length, 1)
    return tuple(strides), step


def lay_out(placed: Placed) -> Laid:
    """Lay values out in a buffer whose other elements hold a guard pattern.

    Parameters
    ----------
    placed : Placed
        Layouts: contiguous; transposed (the last two axes swapped in memory); sliced (rows two
        elements further apart than they are wide); stepped (every second element); offset
        (contiguous, but not at the start of the buffer); expanded (stride 0 on the first axis;
        all values along it must be equal).

    Returns
    -------
    Laid
    """
    values = placed.values
    strides, span = _strides(placed.layout, values.shape)
    guard = 0 if placed.layout == "contiguous" else GUARD
    base: Any = np.empty(span + 2 * guard, values.dtype)
    base.view(np.uint8)[...] = 0x2A
    laid = Laid(base, values.shape, strides, guard)
    if values.size:
        laid.view(base)[...] = values
    return laid
