"""How the Triton kernels cut their work: plain functions of shapes, strides and the chip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch

ACCESS_BYTES: Final = 16  # what a thread moves at once, at most
FEW_INDICES: Final = 8192  # up to here, comparing all pairs beats a radix sort
LONGEST_CHAIN: Final = 32  # groups that a short segment enters, and one more
MOST_UNITS: Final = 2048  # of a program
MOST_GROUPS: Final = 8192
FEW_GROUPS: Final = 1024  # up to here, one launch adds up all partial sums
EARLY_BYTES: Final = 2**22  # up to here, a lookup gains from starting before its turn
CLEARED_BYTES: Final = 2**15  # by a program beside others that sort


@dataclass(frozen=True, slots=True)
class Chip:
    """What launches are sized for.

    Attributes
    ----------
    processors : int
        Streaming multiprocessors.
    tile_bytes : int
        What one program holds of rows at a time, about; under the interpreter one program's time
        does not depend on it, so that large is fast.
    launches_early : bool
        Whether a kernel can start while the one ahead of it still runs (compute capability 9).
    """

    processors: int
    tile_bytes: int
    launches_early: bool = False


NO_CHIP: Final = Chip(processors=2, tile_bytes=2**18)
"""The interpreter."""


@cache
def chip_of(device: torch.device) -> Chip:
    """Look the device up."""
    if device.type != "cuda":
        return NO_CHIP
    properties = torch.cuda.get_device_properties(device)
    nvidia = torch.version.hip is None
    return Chip(properties.multi_processor_count, 2**13, nvidia and properties.major >= 9)


@dataclass(frozen=True, slots=True)
class Access:
    """How a row is cut into units of one access each.

    Attributes
    ----------
    size : int
        Bytes of a unit, at most 16.
    units : int
        Units in a row.
    row_stride, unit_stride : int
        In units.
    """

    size: int
    units: int
    row_stride: int
    unit_stride: int


def access(matrix: torch.Tensor) -> Access:
    """Choose the widest access that every row of a matrix allows.

    Parameters
    ----------
    matrix : Tensor, shape (n, d)
        d at least 1; any strides.

    Returns
    -------
    Access
        Of an element where columns do not lie side by side.
    """
    item, width = matrix.element_size(), matrix.shape[1]
    row_stride = matrix.stride(0) if matrix.shape[0] > 1 else width
    if width > 1 and matrix.stride(1) != 1:
        return Access(item, width, row_stride, matrix.stride(1))
    size = math.gcd(ACCESS_BYTES, item * width, item * row_stride, matrix.data_ptr())
    size = max(size, item)
    return Access(size, item * width // size, item * row_stride // size, 1)


def units_per_program(total: int, size: int, chip: Chip) -> int:
    """Choose how many units of `size` bytes a program moves: a power of two.

    64 bytes a thread where that leaves enough programs to fill the chip, else 16.
    """
    if chip is NO_CHIP:
        return min(max(128, power_of_two(total)), chip.tile_bytes // size)
    most = min(chip.tile_bytes // size, MOST_UNITS)
    return most if total >= 8 * chip.processors * most else 128


def indices_per_program(count: int, chip: Chip) -> int:
    """Choose how many indices a program takes where a thread takes whole ones: a power of two."""
    return 512 if chip is not NO_CHIP else max(128, min(power_of_two(count), 2**14))


def cleared_per_program(item: int, chip: Chip) -> int:
    """Choose to how many elements of `item` bytes a program writes zeros: a power of two."""
    return (CLEARED_BYTES if chip is not NO_CHIP else chip.tile_bytes) // item


def power_of_two(number: int) -> int:
    """Round up."""
    return 1 << max(number - 1, 0).bit_length()


@dataclass(frozen=True, slots=True)
class Walk:
    """How sorted positions are cut into groups, and rows into blocks.

    Attributes
    ----------
    groups, length : int
        Number of groups, and positions in each but the last: a multiple of 4.
    at_once : int
        Groups that a program walks over side by side.
    columns, blocks : int
        Units of a row that a program holds, and programs for a row.
    """

    groups: int
    length: int
    at_once: int
    columns: int
    blocks: int


def walk(count: int, units: int, chip: Chip) -> Walk:
    """Cut work for one warp a program, which holds two units for each thread.

    Parameters
    ----------
    count, units : int
        Positions, and units in a row.
    chip : Chip

    Returns
    -------
    Walk
        Of two programs for each warp that fits on the chip, or as few as leave eight positions to
        a group, or MOST_GROUPS groups: each group leaves up to two partial sums.
    """
    held = chip.tile_bytes // (8 * ACCESS_BYTES)
    columns = min(power_of_two(units), held)
    blocks = -(-units // columns)
    at_once = held // columns
    most = MOST_GROUPS if chip is not NO_CHIP else math.isqrt(count)
    wanted = max(1, min(most, 64 * chip.processors * at_once // blocks))
    length = max(8, -(-count // wanted))
    length = -(-length // 4) * 4
    groups = -(-count // length)
    return Walk(groups, length, min(at_once, power_of_two(groups)), columns, blocks)
