"""Layouts: what is laid out reads back, and what is written around it is noticed."""

from __future__ import annotations

from typing import Any, get_args

import ml_dtypes
import numpy as np
import pytest
import torch

from embconform.conformance.cases.case import Layout, Placed
from embconform.conformance.cases.layouts import (
    GUARD_VALUE,
    SHARING,
    Laid,
    lay_out,
    repeated,
    without_repeats,
)
from embconform.conformance.cases.structure import (
    COLUMN_SLICE,
    INDEX_LAYOUTS,
    PAIRED,
    POOLED,
    ROW_SLICE,
    UNEVEN,
    UPSTREAM_LAYOUTS,
)
from embconform.conformance.observe import to_numpy, to_torch
from embconform.reference.dtypes import Array, bits

SHAPES = ((), (1,), (5,), (0,), (2, 3), (3, 1), (1, 4), (0, 3), (3, 0), (2, 3, 4), (2, 0, 3))
DTYPES: tuple[Any, ...] = (
    np.float32,
    np.float64,
    np.float16,
    ml_dtypes.bfloat16,
    np.int64,
    np.int32,
)


LAYOUTS = get_args(Layout)


def placed(layout: Layout, shape: tuple[int, ...], dtype: Any = np.float32) -> Placed:
    """Values that a layout can hold: equal along the axes that it repeats."""
    own = without_repeats(layout, shape)
    values = np.arange(np.prod(own)).reshape(own).astype(dtype)
    return Placed(repeated(layout, values, shape).copy(), layout)


def addresses(laid: Laid) -> set[int]:
    """The elements of the base that the view reads."""
    numbers = np.arange(laid.base.size)
    return set(laid.view(numbers).reshape(-1).tolist())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
class TestEveryLayout:
    @pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
    def test_reads_back(self, layout: Layout, shape: tuple[int, ...], dtype: Any) -> None:
        given = placed(layout, shape, dtype)
        laid = lay_out(given)
        read = laid.view(laid.base)
        assert read.shape == shape
        assert np.array_equal(bits(read), bits(given.values))

    def test_torch_reads_the_same(self, layout: Layout, shape: tuple[int, ...]) -> None:
        given = placed(layout, shape)
        laid = lay_out(given)
        tensor = to_torch(laid.base).as_strided(laid.shape, laid.strides, laid.offset)
        assert np.array_equal(to_numpy(tensor), given.values)

    def test_a_write_outside_is_noticed(self, layout: Layout, shape: tuple[int, ...]) -> None:
        laid = lay_out(placed(layout, shape))
        inside = addresses(laid)
        for place in set(range(laid.base.size)) - inside:
            written = laid.base.copy()
            assert written[place] == GUARD_VALUE
            written[place] = -0.0
            assert not laid.outside_intact(written)

    def test_a_write_inside_does_not_count(self, layout: Layout, shape: tuple[int, ...]) -> None:
        laid = lay_out(placed(layout, shape))
        written = laid.base.copy()
        assert laid.outside_intact(written)
        written[list(addresses(laid))] = np.nan
        assert laid.outside_intact(written)

    def test_views_have_guards_on_both_sides(self, layout: Layout, shape: tuple[int, ...]) -> None:
        laid = lay_out(placed(layout, shape))
        if layout in ("contiguous", "columns", "paired", "uneven"):
            assert laid.offset == 0
        elif addresses(laid):
            assert min(addresses(laid)) > 0
            assert max(addresses(laid)) < laid.base.size - 1


def strides(layout: Layout, shape: tuple[int, ...] = (3, 4)) -> tuple[int, ...]:
    return lay_out(placed(layout, shape)).strides


class TestWhatTheyAre:
    def test_strides(self) -> None:
        assert {layout: strides(layout) for layout in LAYOUTS} == {
            "contiguous": (4, 1),
            "transposed": (1, 3),
            "sliced": (6, 1),
            "stepped": (8, 2),
            "offset": (4, 1),
            "expanded": (0, 1),
            "spread": (1, 0),
            "broadcast": (0, 0),
            "swapped": (1, 3),
            "windows": (1, 1),
            "rows": (4, 1),
            "columns": (8, 1),
            "pooled": (0, 1),
            "paired": (8, 2),
            "uneven": (5, 1),
            "split": (4, 1),
        }

    def test_only_the_last_two_axes_are_swapped(self) -> None:
        assert strides("transposed", (2, 3, 4)) == (12, 1, 3)

    def test_only_the_first_two_axes_are_swapped(self) -> None:
        assert strides("swapped", (2, 3, 4)) == (4, 8, 1)

    def test_a_part_of_what_is_split_is_a_row_shorter(self) -> None:
        assert strides("split", (2, 3, 4)) == (16, 4, 1)

    def test_windows_start_one_element_apart(self) -> None:
        assert strides("windows", (2, 3, 4)) == (6, 1, 1)

    def test_tokens_that_are_pooled_share_a_row(self) -> None:
        assert strides("pooled", (2, 3, 4)) == (4, 0, 1)

    def test_every_layout_is_listed(self) -> None:
        alone = {ROW_SLICE, COLUMN_SLICE, POOLED, PAIRED, UNEVEN}
        sides = {*INDEX_LAYOUTS, *UPSTREAM_LAYOUTS, *alone}
        assert set(LAYOUTS) == sides

    @pytest.mark.parametrize("layout", SHARING)
    def test_shared_elements_are_counted_once(self, layout: Layout) -> None:
        laid = lay_out(placed(layout, (3, 4)))
        distinct = int(np.prod(without_repeats(layout, (3, 4))))
        assert len(addresses(laid)) == distinct

    @pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in SHARING])
    def test_others_have_an_address_for_each_element(self, layout: Layout) -> None:
        assert len(addresses(lay_out(placed(layout, (3, 4))))) == 12
        assert without_repeats(layout, (3, 4)) == (3, 4)

    def test_a_write_that_only_changes_the_sign_of_zero_is_noticed(self) -> None:
        laid = lay_out(placed("offset", (2,)))
        laid.base[0] = 0.0
        written = laid.base.copy()
        written[0] = -0.0
        assert not laid.outside_intact(written)


def patterns(dtype: Any) -> Array:
    """Zeros of both signs, a subnormal, infinities, and NaNs quiet and signalling."""
    size = np.dtype(dtype).itemsize
    infinity = int(np.array([np.inf], dtype).view(f"u{size}")[0])
    sign = 1 << (8 * size - 1)
    found = [0, sign, 1, infinity, sign | infinity, infinity + 1, infinity + 5, sign | infinity + 3]
    return np.array(found, f"u{size}").view(dtype)


class TestBits:
    @pytest.mark.parametrize(
        "dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64], ids=str
    )
    def test_survive_the_way_to_torch_and_back(self, dtype: Any) -> None:
        given = patterns(dtype)
        back = to_numpy(to_torch(given.copy()))
        assert back.dtype == given.dtype
        assert bits(back).tolist() == bits(given).tolist()

    def test_bfloat16_means_the_same_to_both(self) -> None:
        tensor = to_torch(np.array([1.5, -2.0], ml_dtypes.bfloat16))
        assert tensor.dtype == torch.bfloat16
        assert tensor.tolist() == [1.5, -2.0]

    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
    def test_float8_survives(self, dtype: torch.dtype) -> None:
        tensor = torch.arange(256).to(torch.uint8).view(dtype)
        read = to_numpy(tensor)
        assert bits(read).tolist() == list(range(256))
        assert to_torch(read).view(torch.uint8).tolist() == list(range(256))

    def test_a_copy_is_made(self) -> None:
        tensor = torch.ones(3)
        read = to_numpy(tensor)
        tensor.zero_()
        assert read.tolist() == [1, 1, 1]

    def test_the_memory_of_an_array_is_shared(self) -> None:
        array = np.ones(3, ml_dtypes.bfloat16)
        to_torch(array).zero_()
        assert not array.any()

    def test_strided_and_differentiable_tensors_are_read(self) -> None:
        tensor = torch.arange(6.0).reshape(2, 3).t().requires_grad_()
        assert to_numpy(tensor).tolist() == [[0, 3], [1, 4], [2, 5]]
        assert to_numpy(tensor).flags.c_contiguous
