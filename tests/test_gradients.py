"""The oracle's gradients: by hand, by exact fractions, and by differences of a plain forward."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, format_of
from embconform.reference.gradients import Gradient, double_backward, gradient, segment_sums
from embconform.reference.oracle import F64, Options

TORCH, TEXTBOOK = Profile.TORCH, Profile.TEXTBOOK
FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=60)
W = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9], [1.0, 1.1, 1.2]])


def differentiate(
    table: object,
    ids: list[int],
    upstream: object,
    options: Options | None = None,
    *,
    profile: Profile = TORCH,
    dtype: str = "float64",
) -> Gradient:
    form = format_of(dtype)
    return gradient(
        np.array(table, form.dtype),
        np.array(ids, np.int64),
        np.array(upstream, form.dtype),
        options=options or Options(),
        profile=profile,
        form=form,
    )


class TestByHand:
    @pytest.mark.parametrize("profile", list(Profile))
    def test_equal_indices_add(self, profile: Profile) -> None:
        upstream = [[1, 2, 3], [10, 20, 30], [100, 200, 300]]
        got = differentiate(W, [3, 1, 3], upstream, profile=profile)
        assert got.values.tolist() == [[0] * 3, [10, 20, 30], [0] * 3, [101, 202, 303]]
        assert got.counts.tolist() == [0, 1, 0, 2]
        assert not got.bound.any()  # small whole numbers are exact in every order

    @pytest.mark.parametrize("profile", list(Profile))
    def test_padding_gets_nothing(self, profile: Profile) -> None:
        upstream = [[1, 2, 3], [np.inf, np.nan, -np.inf]]
        got = differentiate(W, [1, 0], upstream, Options(padding_idx=0), profile=profile)
        assert got.values.tolist() == [[0] * 3, [1, 2, 3], [0] * 3, [0] * 3]
        assert not got.open.any()
        assert not got.bound.any()

    def test_scale_by_frequency(self) -> None:
        upstream = [[1.0], [2.0], [4.0], [8.0]]
        got = differentiate([[1.0]] * 3, [1, 2, 1, 1], upstream, Options(scale_grad_by_freq=True))
        assert got.values == pytest.approx(np.array([[0], [13 / 3], [2]]), rel=1e-15)
        assert 0 < got.bound[1, 0] < 1e-14

    def test_a_lone_term_is_rounded_once_it_is_divided(self) -> None:
        upstream, third = [[0.0], [1.0], [0.0]], 1 / 3
        options = Options(scale_grad_by_freq=True)
        got = differentiate([[1.0]], [0] * 3, upstream, options, dtype="bfloat16")
        off = abs(float(format_of("bfloat16").dtype.type(third)) - third)
        assert 0 < off <= got.bound_float32[0, 0] < 2.0**-9 < got.bound[0, 0]

    def test_shares_that_are_subnormal_lose_half_a_one_each(self) -> None:
        count = 9
        upstream = np.full((count, 1), 6.0 * count + 0.55 * count) * 2.0**-24
        shares = (upstream.astype(np.float16) / np.float16(count)).astype(np.float16)
        options = Options(scale_grad_by_freq=True, sparse=True)
        got = differentiate([[1.0]] * 2, [1] * count, upstream, options, dtype="float16")
        off = np.abs(shares.astype(np.float64).sum() - got.values[1, 0])
        assert off > 2 * 2.0**-24
        assert off <= got.bound_float32[1, 0] <= got.bound[1, 0] < 12 * 2.0**-24

    def test_terms_that_are_zero_cost_no_precision(self) -> None:
        upstream = np.zeros((600, 1))
        upstream[7], upstream[70] = 1, 0.1
        got = differentiate([[1.0]], [0] * 600, upstream, dtype="bfloat16")
        assert got.bound[0, 0] <= 2 * 2.0**-8

    def test_scale_by_frequency_leaves_padding_out(self) -> None:
        options = Options(scale_grad_by_freq=True, padding_idx=1)
        got = differentiate([[1.0]] * 3, [1, 2, 1, 2], [[1.0], [2.0], [4.0], [8.0]], options)
        assert got.values.tolist() == [[0], [0], [5]]
        assert got.counts.tolist() == [0, 0, 2]

    def test_torch_passes_straight_through_max_norm(self) -> None:
        got = differentiate([[3.0, 4.0]], [0], [[1.0, 2.0]], Options(max_norm=1.0))
        assert got.values.tolist() == [[1, 2]]

    def test_textbook_goes_through_the_scale(self) -> None:
        options = Options(max_norm=1.0)
        got = differentiate([[3.0, 4.0]], [0], [[1.0, 0.0]], options, profile=TEXTBOOK)
        # d(w0/|w|)/dw = (1/5 - 9/125, -12/125)
        assert got.values[0] == pytest.approx([16 / 125, -12 / 125], rel=1e-14)
        assert (got.bound < 1e-13).all()

    def test_textbook_within_the_bound_passes_through(self) -> None:
        options = Options(max_norm=6.0)
        got = differentiate([[3.0, 4.0]], [0], [[1.0, 2.0]], options, profile=TEXTBOOK)
        assert got.values.tolist() == [[1, 2]]
        assert not got.open.any()

    @pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, np.inf])
    def test_a_zero_row_under_a_positive_bound_is_an_ordinary_point(self, p: float) -> None:
        options = Options(max_norm=1.0, norm_type=p)
        got = differentiate([[0.0, 0.0]], [0], [[1.0, 2.0]], options, profile=TEXTBOOK)
        assert got.values.tolist() == [[1, 2]]
        assert not got.open.any()

    @pytest.mark.parametrize(
        ("row", "p", "max_norm"),
        [
            ([0.0, 3.0], 0.5, 1.0),  # |w|^(p-1) at 0
            ([3.0, -3.0], np.inf, 1.0),  # two largest components
            ([4.0, 0.0], 2.0, 4.0),  # the kink
        ],
    )
    def test_no_derivative_no_value_is_required(
        self, row: list[float], p: float, max_norm: float
    ) -> None:
        options = Options(max_norm=max_norm, norm_type=p)
        got = differentiate([row], [0], [[1.0, 2.0]], options, profile=TEXTBOOK)
        assert got.open.all()

    def test_no_indices(self) -> None:
        got = differentiate(W, [], np.zeros((0, 3)))
        assert got.values.shape == (4, 3)
        for part in (got.values, got.bound, got.open):
            assert not part.any()


class TestNonFinite:
    @pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
    def test_only_the_elements_it_reaches_are_open(self, odd: float) -> None:
        got = differentiate(W, [1, 1, 2], [[odd, 1, 1], [1, 1, 1], [2, 2, 2]])
        assert np.argwhere(got.open).tolist() == [[1, 0]]
        assert got.values[1:3].tolist() == [[1, 2, 2], [2, 2, 2]]
        assert np.isfinite(got.bound).all()

    def test_it_reaches_every_column_through_the_scale(self) -> None:
        options = Options(max_norm=1.0)
        upstream = [[np.inf, 1.0], [1.0, 2.0]]
        got = differentiate([[3.0, 4.0]] * 2, [0, 1], upstream, options, profile=TEXTBOOK)
        assert got.open.tolist() == [[True, True], [False, False]]

    def test_sums_near_the_largest_number_are_open(self) -> None:
        got = differentiate([[1.0]] * 2, [0, 0, 1], [[60000.0]] * 2 + [[5.0]], dtype="float16")
        assert got.open.tolist() == [[True], [False]]


@st.composite
def cancelling(draw: st.DrawFn) -> list[float]:
    """Terms of very different sizes, most of which cancel."""
    size = st.builds(lambda m, e: m * 2.0**e, st.floats(-1, 1), st.integers(-300, 300))
    large = draw(st.lists(size, min_size=1, max_size=12))
    small = draw(st.lists(size, max_size=4))
    return draw(st.permutations([*large, *(-term for term in large), *small]))


class TestExactSums:
    @FIXED
    @given(cancelling())
    def test_float64_sums_are_rounded_once(self, terms: list[float]) -> None:
        column = np.array(terms)[:, None]
        sums = segment_sums(np.zeros(len(terms), np.int64), column, 1, exact=True)
        assert sums[0, 0] == float(sum(map(Fraction, terms)))

    def test_a_plain_sum_would_not_do(self) -> None:
        terms = np.array([1e16, 1.0, -1e16, 1.0])[:, None]
        ids = np.zeros(4, np.int64)
        assert segment_sums(ids, terms, 1, exact=True) == 2.0
        assert segment_sums(ids, terms, 1, exact=False) != 2.0
        assert differentiate([[0.0]], [0] * 4, terms).values == 2.0

    @FIXED
    @given(st.lists(st.integers(0, 3), max_size=20), st.booleans())
    def test_by_row_and_column(self, ids: list[int], exact: bool) -> None:
        terms = np.arange(2.0 * len(ids)).reshape(len(ids), 2)
        sums = segment_sums(np.array(ids, np.int64), terms, 4, exact=exact)
        for row in range(4):
            chosen = [k for k, name in enumerate(ids) if name == row]
            assert sums[row].tolist() == [2.0 * sum(chosen), 2.0 * sum(chosen) + len(chosen)]


class TestBounds:
    def test_two_terms_whose_sum_lies_between_two_numbers(self) -> None:
        """A long double sum, rounded twice, is one ulp from the one that is rounded once."""
        terms = [0.0052920574057111385, -796.691757242854]
        found = differentiate([[0.0]], [0, 0], [[term] for term in terms])
        exact = sum(map(Fraction, terms))
        for value in (-796.6864651854482, -796.6864651854484):
            assert abs(Fraction(value) - exact) < Fraction(found.magnitudes[0, 0] * 2.0**-53)
            assert abs(value - found.values[0, 0]) <= found.bound[0, 0]

    @pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 1.5, np.inf])
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_a_lone_component_of_any_size_has_no_slope(self, p: float, dtype: str) -> None:
        largest = 90 if dtype == "float64" else 9
        for exponent in np.linspace(1, largest, 40):
            row = [[10.0**exponent]]
            options = Options(max_norm=1.0, norm_type=p)
            found = differentiate(row, [0], [[1.0]], options, profile=TEXTBOOK, dtype=dtype)
            assert found.open[0, 0] or abs(found.values[0, 0]) <= found.bound[0, 0]

    def test_the_slope_at_a_subnormal_component_is_exact(self) -> None:
        row, p = np.array([1e-310, 2.0]), 0.5
        options = Options(max_norm=1.0, norm_type=p)
        found = differentiate([row], [0], [[0.0, 1.0]], options, profile=TEXTBOOK)
        norm = (row**p).sum() ** 2
        exact = -row[1] * row[0] ** (p - 1) * norm ** (-1 - p)
        assert abs(found.values[0, 0] / exact - 1) < 1e-14

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_a_sum_in_the_dtype_is_within_and_one_dropped_is_not(self, dtype: str) -> None:
        form = format_of(dtype)
        rng = np.random.default_rng(1)
        terms = rng.uniform(1, 2, (20, 6)).astype(form.dtype)
        exact = differentiate(np.ones((1, 6)), [0] * 20, terms, dtype=dtype)
        total = np.zeros(6, form.dtype)
        for term in terms:
            total = (total + term).astype(form.dtype)
        assert (np.abs(total - exact.values) <= exact.bound).all()
        less = terms[1:].astype(np.float64).sum(axis=0)
        assert (np.abs(less - exact.values) > exact.bound_float32).all()

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_float32_accumulation_is_within_and_the_dtype_is_not(self, dtype: str) -> None:
        form = format_of(dtype)
        count = 3000 if dtype == "float16" else 400
        exact = differentiate(np.ones((1, 1)), [0] * count, np.full((count, 1), 1.1), dtype=dtype)
        own, wide = form.dtype.type(0), np.float32(0)
        for _ in range(count):
            own = form.dtype.type(own + form.dtype.type(1.1))
            wide = wide + np.float32(form.dtype.type(1.1))
        assert abs(float(form.dtype.type(wide)) - exact.values) <= exact.bound_float32
        assert exact.bound_float32 < abs(float(own) - exact.values) <= exact.bound

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
    def test_a_row_named_once_is_a_copy(self, dtype: str) -> None:
        exact = differentiate(W, [2], [[0.1, 0.7, -1.3]], dtype=dtype)
        assert not exact.bound.any()
        assert not exact.bound_float32.any()

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_scaled_counts_in_the_dtype_are_within(self, dtype: str) -> None:
        form, rng = format_of(dtype), np.random.default_rng(2)
        for count in (2, 3, 7, 50):
            terms = rng.standard_normal((count, 4)).astype(form.dtype)
            options = Options(scale_grad_by_freq=True)
            exact = differentiate(np.ones((1, 4)), [0] * count, terms, options, dtype=dtype)
            factor = form.dtype.type(1 / count)
            each, last = np.zeros(4, form.dtype), np.zeros(4, form.dtype)
            for term in terms:
                each = (each + (term * factor).astype(form.dtype)).astype(form.dtype)
                last = (last + term).astype(form.dtype)
            divided = (last / form.dtype.type(count)).astype(form.dtype)
            for got in (each, divided):
                assert (np.abs(got - exact.values) <= exact.bound).all()
            assert (np.abs(last - exact.values) > exact.bound).any()


def forward(table: F64, ids: Array, options: Options) -> F64:
    """The document's formulas: look up, mask, scale by min(max_norm / norm, 1)."""
    out = table[ids].copy()
    if options.padding_idx is not None:
        out[ids == options.padding_idx] = 0.0
    assert options.max_norm is not None
    named = out[out.any(axis=1)]
    norms = np.linalg.norm(named, ord=options.norm_type, axis=1, keepdims=True)
    out[out.any(axis=1)] = named * np.minimum(options.max_norm / norms, 1.0)
    return out


def differences(table: F64, ids: Array, upstream: F64, options: Options) -> F64:
    """Central differences, with a step that balances truncation and rounding."""
    step, found = 2.0**-17, np.zeros_like(table)
    for place in np.ndindex(table.shape):
        ends = []
        for sign in (1, -1):
            moved = table.copy()
            moved[place] += sign * step
            ends.append((forward(moved, ids, options) * upstream).sum())
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


class TestDifferences:
    """A cross-check of the formula, not of its precision."""

    @pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 3.0, np.inf])
    @pytest.mark.parametrize("padding", [None, 1])
    @pytest.mark.parametrize("max_norm", [0.7, 2.0, 50.0])
    def test_textbook_through_the_scale(
        self, p: float, padding: int | None, max_norm: float
    ) -> None:
        rng = np.random.default_rng(5)
        table = rng.choice([-1.0, 1.0], (4, 3)) * rng.uniform(0.5, 2, (4, 3))
        ids = np.array([0, 2, 1, 2, 3, 2])
        upstream = rng.standard_normal((6, 3))
        options = Options(padding_idx=padding, max_norm=max_norm, norm_type=p)
        exact = differentiate(table, ids.tolist(), upstream, options, profile=TEXTBOOK)
        error = np.abs(exact.values - differences(table, ids, upstream, options))
        assert not exact.open.any()
        assert error.max() < 1e-8 * max(np.abs(exact.values).max(), 1)
        assert (exact.bound < 1e-11).all()


class TestDoubleBackward:
    DIRECTION = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])

    def second(self, options: Options) -> list[list[float]]:
        ids = np.array([1, 2, 1], np.int64)
        values, bound = double_backward(self.DIRECTION, ids, options, format_of("float64"))
        assert (bound <= 1e-14).all()
        return values.tolist()

    def test_rows_of_the_direction(self) -> None:
        assert self.second(Options()) == [[3, 4], [5, 6], [3, 4]]

    def test_zero_at_padding(self) -> None:
        assert self.second(Options(padding_idx=1)) == [[0, 0], [5, 6], [0, 0]]

    def test_divided_by_the_count(self) -> None:
        assert self.second(Options(scale_grad_by_freq=True)) == [[1.5, 2], [5, 6], [1.5, 2]]

    def test_is_the_adjoint_of_the_gradient(self) -> None:
        rng = np.random.default_rng(0)
        ids, upstream = [1, 2, 1], rng.standard_normal((3, 2))
        for options in (Options(), Options(padding_idx=2), Options(scale_grad_by_freq=True)):
            first = differentiate(self.DIRECTION, ids, upstream, options).values
            second = np.array(self.second(options))
            assert (first * self.DIRECTION).sum() == pytest.approx((upstream * second).sum())
