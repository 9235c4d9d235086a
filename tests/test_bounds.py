"""The bounds hold for every right way to compute, and leave no room for wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embconform.reference.bounds import (
    exponent_roundings,
    gamma,
    is_exact_sum,
    norm_roundings,
    relative,
    summation,
)
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, Format, bits, format_of, ulp
from embconform.reference.oracle import EPSILON, Options, bound_rows, p_norm

DTYPES = ("float32", "float16", "bfloat16", "float64")
NARROW = ("float32", "float16", "bfloat16")
FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def sequential(terms: Array) -> Any:
    total = terms.dtype.type(0)
    for term in terms:
        total = terms.dtype.type(total + term)
    return total


def pairwise(terms: Array) -> Any:
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return terms.dtype.type(pairwise(terms[:half]) + pairwise(terms[half:]))


def lanes(terms: Array) -> Any:
    return sequential(np.array([sequential(terms[k::4]) for k in range(4)], terms.dtype))


def shuffled(terms: Array) -> Any:
    return sequential(np.random.default_rng(len(terms)).permutation(terms))


ORDERS: tuple[Callable[[Array], Any], ...] = (
    sequential,
    lambda terms: sequential(terms[::-1]),
    pairwise,
    lanes,
    shuffled,
)


@st.composite
def term_lists(draw: Any) -> Array:
    form = format_of(draw(st.sampled_from(NARROW)))
    element = st.floats(-200, 200, width=16)
    terms = draw(hnp.arrays(np.float64, st.integers(1, 60), elements=element))
    return np.asarray(terms.astype(form.dtype))


def allowed(terms: Array, form: Format) -> float:
    wide = terms.astype(np.float64)
    return float(summation(len(terms), np.abs(wide).sum(), form.unit_roundoff))


class TestSummation:
    @FIXED
    @given(term_lists())
    def test_every_order_is_within(self, terms: Array) -> None:
        form = format_of(terms.dtype.name)
        exact = float(terms.astype(np.float64).sum())
        for order in ORDERS:
            assert abs(float(order(terms)) - exact) <= allowed(terms, form)

    @pytest.mark.parametrize("dtype", NARROW)
    @pytest.mark.parametrize("count", [256, 1000, 3073])
    def test_long_sums_are_within(self, dtype: str, count: int) -> None:
        form = format_of(dtype)
        for seed in range(3):
            terms = np.random.default_rng(seed).standard_normal(count).astype(form.dtype)
            exact = float(terms.astype(np.float64).sum())
            for order in ORDERS:
                assert abs(float(order(terms)) - exact) <= allowed(terms, form)

    @pytest.mark.parametrize(("dtype", "stuck"), [("bfloat16", 256), ("float16", 2048)])
    def test_a_sum_of_ones_that_stagnates_is_within(self, dtype: str, stuck: int) -> None:
        ones = np.ones(stuck + 700, format_of(dtype).dtype)
        assert float(sequential(ones)) == stuck
        assert abs(stuck - len(ones)) <= allowed(ones, format_of(dtype))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("count", [2, 3, 5, 11])
    def test_a_dropped_term_is_outside(self, dtype: str, count: int) -> None:
        form = format_of(dtype)
        for seed in range(20):
            rng = np.random.default_rng(seed)
            terms = (rng.choice([-1.0, 1.0], count) * rng.uniform(1, 2, count)).astype(form.dtype)
            error = abs(float(terms[rng.integers(count)]))
            assert error > allowed(terms, form)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_one_term_is_exact(self, dtype: str) -> None:
        assert summation(1, np.array(7.0), format_of(dtype).unit_roundoff) == 0
        assert summation(0, np.array(0.0), format_of(dtype).unit_roundoff) == 0

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("count", [2, 3, 4, 12])
    def test_each_addition_rounds_once(self, dtype: str, count: int) -> None:
        """Also where 1 + u is 1: a right sum, rounded twice, was refused in float64."""
        u = format_of(dtype).unit_roundoff
        assert summation(count, np.array(1.0), u) == (count - 1) * u

    @pytest.mark.parametrize("count", [2, 7, 300])
    @pytest.mark.parametrize("roundings", [0, 1, 4])
    def test_at_most_highams_gamma(self, count: int, roundings: int) -> None:
        u = 2.0**-11
        bound = summation(count, np.array(1.0), u, roundings)
        assert 0 < bound <= gamma(count - 1 + roundings, u)

    def test_finite_where_gamma_is_not(self) -> None:
        u = 2.0**-8
        assert gamma(5000, u) == np.inf
        assert summation(5000, np.array(1.0), u) == 4999 * u

    def test_counts_broadcast(self) -> None:
        bound = summation(np.array([[1], [3]]), np.array([[1.0, 2.0], [1.0, 2.0]]), 0.25)
        assert bound.tolist() == [[0, 0], [0.5, 1.0]]


class TestRelative:
    @pytest.mark.parametrize("roundings", [1, 2, 10, 100])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_little_below_gamma(self, roundings: int, dtype: str) -> None:
        u = format_of(dtype).unit_roundoff
        bound = float(relative(roundings, u))
        assert roundings * u * (1 - 1e-12) <= bound <= gamma(roundings, u) * (1 + 1e-12)

    @FIXED
    @given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.data())
    def test_covers_every_product(self, shares: list[float], data: st.DataObject) -> None:
        u = 2.0**-8
        signs = data.draw(st.lists(st.sampled_from((-1, 1)), min_size=30, max_size=30))
        product = np.prod([(1 + u * d) ** s for d, s in zip(shares, signs, strict=False)])
        assert abs(product - 1) <= float(relative(len(shares), u)) * (1 + 1e-12)

    def test_no_rounding_no_error(self) -> None:
        assert relative(0, 2.0**-8) == 0
        assert gamma(0, 2.0**-8) == 0


class TestExactSum:
    @FIXED
    @given(st.lists(st.integers(-40, 40), min_size=1, max_size=50), st.sampled_from(NARROW))
    def test_every_order_is_free_of_rounding(self, whole: list[int], dtype: str) -> None:
        form = format_of(dtype)
        terms = np.array(whole, np.float64)
        if is_exact_sum(terms, np.abs(terms).sum(), form.precision):
            for order in ORDERS:
                assert float(order(terms.astype(form.dtype))) == sum(whole)

    def test_up_to_the_last_whole_number(self) -> None:
        sums = np.array([255.0, 256.0, 257.0])
        assert is_exact_sum(np.array([1.0, 2.0]), sums, 8).tolist() == [True, True, False]

    @pytest.mark.parametrize("term", [0.5, np.inf, np.nan])
    def test_needs_whole_numbers(self, term: float) -> None:
        whole = is_exact_sum(np.array([1.0, term]), np.array([2.0]), 24)
        assert whole.tolist() == [term == np.inf]


class TestFormats:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_unit_roundoff_is_half_a_step_at_one(self, dtype: str) -> None:
        form = format_of(dtype)
        one = form.dtype.type(1)
        assert float(form.dtype.type(float(one) + form.unit_roundoff)) == 1.0  # ties to even
        assert float(form.dtype.type(1 + 2 * form.unit_roundoff)) > 1.0
        assert ulp(1.0, dtype) == 2 * form.unit_roundoff

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_range(self, dtype: str) -> None:
        form = format_of(dtype)
        first = np.array([1], f"u{form.dtype.itemsize}").view(form.dtype)[0]
        assert float(first) == form.smallest_subnormal == ulp(0.0, dtype) == ulp(1e-320, dtype)
        assert form.largest < float("inf")
        assert form.smallest_normal == form.smallest_subnormal * 2 ** (form.precision - 1)

    def test_bits_tell_zeros_and_payloads_apart(self) -> None:
        assert bits(np.array([0.0, -0.0], np.float32)).tolist() == [0, 1 << 31]
        assert bits(np.arange(6, dtype=np.int16).reshape(2, 3).T).tolist() == [
            [0, 3],
            [1, 4],
            [2, 5],
        ]
        assert bits(np.array([1 + 2j])).shape == (1, 2)


def _plain_norm(rows: Array, p: float) -> Array:
    """As the formula is written, every operation rounded to the dtype, columns left to right."""
    sizes = np.abs(rows)
    if np.isinf(p):
        return np.asarray(sizes.max(axis=1))
    powers = sizes if p == 1 else sizes * sizes if p == 2 else _power(sizes, p)
    total = powers[:, 0]
    for column in powers.T[1:]:
        total = (total + column).astype(rows.dtype)
    return total if p == 1 else np.sqrt(total) if p == 2 else _power(total, 1 / p)


def _power(values: Array, p: float) -> Array:
    """Raise to p rounded to the dtype, and round."""
    return np.asarray((values ** values.dtype.type(p)).astype(values.dtype))


def _pow_norm(rows: Array, p: float) -> Array:
    """With pow for p = 1 and 2 too."""
    if np.isinf(p):
        return _plain_norm(rows, p)
    powers = _power(np.abs(rows), p)
    return _power(np.array([pairwise(row) for row in powers], rows.dtype), 1 / p)


def _scaled_norm(rows: Array, p: float) -> Array:
    """Divided by the largest component first, as LAPACK does."""
    largest = np.abs(rows).max(axis=1)
    unit = np.where(largest > 0, largest, 1).astype(rows.dtype)
    return (unit * _plain_norm((rows / unit[:, None]).astype(rows.dtype), p)).astype(rows.dtype)


def _wide_norm(rows: Array, p: float) -> Array:
    """In float32 or better, rounded to the dtype."""
    wide = rows.astype(np.promote_types(np.float32, rows.dtype) if rows.itemsize > 2 else "f4")
    return np.asarray(_plain_norm(wide, p).astype(rows.dtype))


FORMULAS = (_plain_norm, _pow_norm, _scaled_norm, _wide_norm)


def renorm(rows: Array, norms: Array, max_norm: float, epsilon: float) -> Array:
    """Scale rows, every operation rounded to the dtype."""
    kind = rows.dtype.type
    with np.errstate(all="ignore"):
        scale = (kind(max_norm) / (norms + kind(epsilon)).astype(rows.dtype)).astype(rows.dtype)
    scaled = (rows * scale[:, None]).astype(rows.dtype)
    return np.where((norms > kind(max_norm))[:, None], scaled, rows)


CASES = [(dtype, p) for dtype in DTYPES for p in (0.5, 1.0, 2.0, 3.0, np.inf)]


def rows_of(seed: int, width: int, dtype: str, p: float) -> tuple[Array, float]:
    rng = np.random.default_rng([seed, width])
    rows = rng.standard_normal((40, width)) * 2.0 ** rng.integers(-2, 3, (40, 1))
    values = rows.astype(format_of(dtype).dtype)
    norms, _ = p_norm(values.astype(np.float64), p)
    near = float(norms[0]) * (1 + float(rng.integers(-3, 4)) * format_of(dtype).unit_roundoff)
    return values, (1.0, near, float(norms[1]) / 3)[seed % 3]


def oracle(values: Array, max_norm: float, p: float, profile: Profile = Profile.TORCH) -> Any:
    options = Options(max_norm=max_norm, norm_type=p)
    return bound_rows(values, options, profile, format_of(values.dtype.name))


class TestNorms:
    @pytest.mark.parametrize(("dtype", "p"), CASES)
    @pytest.mark.parametrize("width", [1, 2, 5, 33])
    @pytest.mark.parametrize("profile", list(Profile))
    def test_every_formula_is_within(
        self, dtype: str, p: float, width: int, profile: Profile
    ) -> None:
        epsilon = EPSILON if profile is Profile.TORCH else 0.0
        for seed in range(6):
            values, max_norm = rows_of(seed, width, dtype, p)
            limit = oracle(values, max_norm, p, profile)
            for formula in FORMULAS:
                norms = formula(values, p)
                with np.errstate(invalid="ignore"):
                    over = norms > values.dtype.type(max_norm)
                assert not over[limit.kept].any()
                assert over[limit.over & ~limit.open].all()
                error = np.abs(renorm(values, norms, max_norm, epsilon) - limit.values)
                assert (error <= limit.bound)[~limit.open].all()

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
    def test_a_wide_norm_is_within_the_narrower_bound(self, dtype: str, p: float) -> None:
        for seed in range(6):
            values, max_norm = rows_of(seed, 200, dtype, p)
            wide = values.astype(np.float32)
            norms = _plain_norm(wide, p)
            limit = oracle(values, max_norm, p)
            scaled = renorm(wide, norms, max_norm, EPSILON).astype(values.dtype)
            closed = ~limit.open
            assert (np.abs(scaled - limit.values) <= limit.bound_float32)[closed].all()
            assert (limit.bound_float32 <= limit.bound)[closed].all()

    @pytest.mark.parametrize(("dtype", "p"), CASES)
    def test_a_forgotten_column_is_outside(self, dtype: str, p: float) -> None:
        rng = np.random.default_rng(3)
        values = rng.uniform(1, 2, (20, 4)).astype(format_of(dtype).dtype)
        values[:, -1] *= values.dtype.type(4)
        limit = oracle(values, 0.5, p)
        wrong = renorm(values, _plain_norm(values[:, :-1], p), 0.5, EPSILON)
        assert (np.abs(wrong - limit.values) > limit.bound).any(axis=1).all()

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_the_epsilon_of_another_kernel_is_outside(self, dtype: str) -> None:
        values = np.full((1, 2), 1e-4).astype(dtype)
        limit = oracle(values, 1e-5, 2.0)
        for epsilon, good in ((EPSILON, True), (0.0, False), (1e-6, False)):
            got = renorm(values, _plain_norm(values, 2.0), 1e-5, epsilon)
            assert (np.abs(got - limit.values) <= limit.bound).all() is np.bool_(good)

    def test_wide_rows_grow_by_half_a_rounding_a_column(self) -> None:
        assert norm_roundings(1025, 2.0) - norm_roundings(1, 2.0) == 512
        assert norm_roundings(1025, 1.0) - norm_roundings(1, 1.0) == 1024
        assert norm_roundings(1025, np.inf) == norm_roundings(1, np.inf) == 1

    def test_a_rounded_exponent_costs_a_logarithm(self) -> None:
        sums = np.exp(np.array([-6.0, 0.0, 6.0]))
        assert np.allclose(exponent_roundings(sums, 3.0), [2, 0, 2])
        assert not exponent_roundings(sums, 2.0).any()


def test_beyond_any_number_it_stays_one() -> None:
    assert 1e80 < float(relative(2**20, 2.0**-9)) < 1e100
