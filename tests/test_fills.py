"""Values: what each kind promises, and that a seed means the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from embconform.conformance.cases.fills import TABLE_FILLS, UPSTREAM_FILLS
from embconform.reference.dtypes import Array, bits, format_of

DTYPES = ("float32", "float64", "float16", "bfloat16")
SHAPES = ((5, 4), (1, 1), (40, 3), (3, 0), (0, 2))
ALL = {**{f"table {k}": v for k, v in TABLE_FILLS.items()}, **UPSTREAM_FILLS}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("dtype", DTYPES)
class TestEveryKind:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_shape_and_dtype(self, kind: str, dtype: str, shape: tuple[int, ...]) -> None:
        for seed in (0, 1, 99, 2**20 * 100):
            values = ALL[kind](shape, dtype, seed)
            assert values.shape == shape
            assert values.dtype == format_of(dtype).dtype

    def test_a_seed_gives_the_same_bits(self, kind: str, dtype: str) -> None:
        for seed in (0, 7):
            once, again = (ALL[kind]((6, 5), dtype, seed) for _ in range(2))
            assert np.array_equal(bits(once), bits(again))

    def test_another_seed_gives_other_values(self, kind: str, dtype: str) -> None:
        if kind != "ones":
            first, second = (ALL[kind]((6, 5), dtype, seed) for seed in (7, 8))
            assert not np.array_equal(bits(first), bits(second))


def wide(kind: str, dtype: str, seed: int, shape: tuple[int, int] = (50, 6)) -> Array:
    fills = TABLE_FILLS if kind in TABLE_FILLS else UPSTREAM_FILLS
    return fills[kind](shape, dtype, seed).astype(np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", [0, 3])
class TestPromises:
    @pytest.mark.parametrize("kind", ["plain", "tiny", "huge", "units", "ones"])
    def test_nothing_is_zero(self, kind: str, dtype: str, seed: int) -> None:
        values = wide(kind, dtype, seed)
        assert np.isfinite(values).all()
        assert (values != 0).all()

    def test_plain_has_both_signs(self, dtype: str, seed: int) -> None:
        values = wide("plain", dtype, seed)
        assert (values < 0).any()
        assert (values > 0).any()

    def test_special_has_every_kind(self, dtype: str, seed: int) -> None:
        values = TABLE_FILLS["special"]((50, 6), dtype, seed)
        numbers, form = values.astype(np.float64), format_of(dtype)
        zeros = bits(values)[numbers == 0]
        assert len(np.unique(zeros)) == 2
        assert np.isinf(numbers).any()
        assert ((numbers != 0) & (np.abs(numbers) < form.smallest_normal)).any()
        assert (numbers == form.largest).any()
        assert len(np.unique(bits(values)[np.isnan(numbers)])) == 2

    def test_special_has_no_signalling_nan(self, dtype: str, seed: int) -> None:
        values = TABLE_FILLS["special"]((50, 6), dtype, seed)
        quiet = 1 << (format_of(dtype).precision - 2)
        assert (bits(values)[np.isnan(values.astype(np.float64))] & quiet).all()

    def test_the_squares_of_huge_overflow(self, dtype: str, seed: int) -> None:
        shares = (wide("huge", dtype, seed) / np.sqrt(format_of(dtype).largest)) ** 2
        assert ((shares.sum(axis=1) if seed else shares) > 1).all()

    def test_a_spike_a_row(self, dtype: str, seed: int) -> None:
        values = wide("spike", dtype, seed)
        assert ((values != 0).sum(axis=1) == 1).all()
        assert (64 * values == np.rint(64 * values)).all()
        assert (values[:, -1] != 0).any()
        assert (values[:, :-1] != 0).any()

    def test_every_second_row_is_zero(self, dtype: str, seed: int) -> None:
        rows = wide("zero-rows", dtype, seed).any(axis=1)
        assert rows.tolist() == [k % 2 != seed % 2 for k in range(50)]

    @pytest.mark.parametrize("kind", ["units", "ones", "nonfinite"])
    def test_whole_numbers(self, kind: str, dtype: str, seed: int) -> None:
        values = wide(kind, dtype, seed)
        finite = values[np.isfinite(values)]
        assert (finite == np.rint(finite)).all()
        assert np.abs(finite).max() <= 3
        assert (finite.size == values.size) is (kind != "nonfinite")


def test_seed_zero_is_readable() -> None:
    assert TABLE_FILLS["plain"]((2, 3), "float32", 0).tolist() == [
        [0.125, -0.25, 0.375],
        [0.5, -0.625, 0.75],
    ]
    assert UPSTREAM_FILLS["units"]((4,), "float32", 0).tolist() == [1, 2, 3, 1]


def test_neighbouring_rows_differ() -> None:
    values = TABLE_FILLS["plain"]((1000, 1), "float32", 0)
    assert len(np.unique(values)) == 1000
