"""The oracle's rows against values worked out by hand and the founding document's."""

from __future__ import annotations

import numpy as np
import pytest

from embconform.conformance.cases.case import Backward, Call, Case, Placed
from embconform.conformance.outcome import MemorySeen, Outcome, StepSeen
from embconform.conformance.views import CallView, views
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, format_of
from embconform.reference.oracle import Bounded, Options, bound_rows, p_norm

VOCABULARY = {"apple": 0, "banana": 1, "cherry": 2, "date": 3}
W = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9], [1.0, 1.1, 1.2]])
TORCH, TEXTBOOK = Profile.TORCH, Profile.TEXTBOOK


def bounded(
    rows: object,
    max_norm: float,
    p: float = 2.0,
    profile: Profile = TEXTBOOK,
    dtype: str = "float64",
) -> Bounded:
    form = format_of(dtype)
    table: Array = np.array(rows, form.dtype)
    return bound_rows(table, Options(max_norm=max_norm, norm_type=p), profile, form)


def viewed(options: Options, ids: list[int], profile: Profile = TORCH) -> CallView:
    call = Call(Placed(np.array(ids)))
    case = Case("", profile, Placed(W), options, "grad", "functional", (call,))
    seen = StepSeen(None, MemorySeen(W, True, {0: np.array(ids)}, True))
    (view,) = views(case, Outcome((seen,)))
    assert isinstance(view, CallView)
    return view


class TestLookup:
    def test_the_documents_example(self) -> None:
        view = viewed(Options(), [VOCABULARY["banana"], VOCABULARY["date"]])
        assert view.expected_copy.tolist() == [[0.4, 0.5, 0.6], [1.0, 1.1, 1.2]]

    def test_the_documents_padding(self) -> None:
        view = viewed(Options(padding_idx=0), [0, 2, 0], TEXTBOOK)
        assert view.padded.tolist() == [True, False, True]

    @pytest.mark.parametrize("given", [2, -2])
    def test_negative_padding_counts_from_the_end(self, given: int) -> None:
        view = viewed(Options(padding_idx=given), [0, 2, 3])
        assert view.padding == 2
        assert view.padded.tolist() == [False, True, False]

    def test_no_padding_pads_nothing(self) -> None:
        assert not viewed(Options(), [0, 1]).padded.any()

    def test_the_rows_that_are_looked_up(self) -> None:
        view = viewed(Options(), [3, 1, 3])
        assert view.looked_up.tolist() == [False, True, False, True]
        assert view.repeats.tolist() == [True, False, True]

    def test_options_normalise_only_what_is_negative(self) -> None:
        assert Options(padding_idx=-4).normalised(4).padding_idx == 0
        assert Options(padding_idx=3).normalised(4).padding_idx == 3
        assert Options().normalised(4).padding_idx is None


class TestNorms:
    @pytest.mark.parametrize(
        ("p", "norm"),
        [(1.0, 7.0), (2.0, 5.0), (3.0, 91 ** (1 / 3)), (0.5, 7 + 4 * 3**0.5), (np.inf, 4.0)],
    )
    def test_three_four(self, p: float, norm: float) -> None:
        got, _ = p_norm(np.array([[3.0, -4.0]]), p)
        assert got == pytest.approx([norm], rel=1e-15)

    @pytest.mark.parametrize("size", [1e300, 1e-300])
    @pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
    def test_no_overflow_and_no_underflow(self, size: float, p: float) -> None:
        with np.errstate(over="ignore"):
            got, _ = p_norm(np.array([[3.0 * size, -4.0 * size]]), p)
        assert got / size == pytest.approx([(3**p + 4**p) ** (1 / p)], rel=1e-14)

    @pytest.mark.parametrize("p", [0.5, 1.0, 2.0, np.inf])
    def test_zero_row_and_row_without_columns(self, p: float) -> None:
        assert p_norm(np.zeros((1, 3)), p)[0] == [0]
        assert p_norm(np.zeros((2, 0)), p)[0].tolist() == [0, 0]


class TestMaxNorm:
    def test_the_documents_formula(self) -> None:
        got = bounded([[3.0, 4.0]], 1.0)
        assert got.values[0] == pytest.approx([0.6, 0.8], rel=1e-15)
        assert got.over.all()
        assert not got.kept.any()

    def test_torch_adds_epsilon(self) -> None:
        got = bounded([[3e-4, 4e-4]], 1e-4, profile=TORCH)
        assert got.values[0] == pytest.approx([6e-5 / 1.0002, 8e-5 / 1.0002], rel=1e-12)

    @pytest.mark.parametrize(
        ("p", "row"),
        [
            (1.0, [3 / 7, -4 / 7]),
            (np.inf, [0.75, -1.0]),
            (3.0, [3 / 91 ** (1 / 3), -4 / 91 ** (1 / 3)]),
        ],
    )
    def test_other_norms(self, p: float, row: list[float]) -> None:
        assert bounded([[3.0, -4.0]], 1.0, p).values[0] == pytest.approx(row, rel=1e-14)

    def test_a_row_within_the_bound_keeps_its_bits(self) -> None:
        got = bounded([[0.3, 0.4]], 1.0)
        assert got.values.tolist() == [[0.3, 0.4]]
        assert got.bound.tolist() == [[0.0, 0.0]]
        assert got.kept.all()

    @pytest.mark.parametrize("profile", list(Profile))
    def test_a_row_at_the_bound_is_not_scaled(self, profile: Profile) -> None:
        got = bounded([[0.0, -4.0]], 4.0, profile=profile)
        assert got.kept.all()
        assert got.values.tolist() == [[0.0, -4.0]]

    def test_a_norm_too_close_to_call_may_fall_on_either_side(self) -> None:
        got = bounded([[0.6, 0.8]], 1.0, profile=TORCH)  # 0.36 + 0.64 rounds
        assert not (got.kept | got.over | got.open).any()
        assert (np.abs([0.6, 0.8] - got.values) <= got.bound).all()
        assert (np.abs([0.6 / 1.0000001, 0.8 / 1.0000001] - got.values) <= got.bound).all()

    @pytest.mark.parametrize("profile", list(Profile))
    def test_zero_bound_gives_zeros(self, profile: Profile) -> None:
        got = bounded([[3.0, 4.0]], 0.0, profile=profile, dtype="float32")
        assert got.values.tolist() == [[0, 0]]
        assert (got.bound <= format_of("float32").smallest_subnormal).all()

    @pytest.mark.parametrize("profile", list(Profile))
    @pytest.mark.parametrize("max_norm", [0.0, 1.0])
    def test_a_zero_row_stays(self, profile: Profile, max_norm: float) -> None:
        got = bounded([[0.0, -0.0]], max_norm, profile=profile)
        assert got.values.tolist() == [[0, 0]]
        assert got.kept.all()

    @pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
    def test_non_finite_rows_are_open(self, odd: float) -> None:
        got = bounded([[odd, 4.0], [3.0, 4.0]], 1.0, profile=TORCH)
        assert got.open.tolist() == [True, False]
        assert not (got.kept | got.over)[0]

    @pytest.mark.parametrize(
        ("dtype", "row", "trouble"),
        [
            ("float32", [1e30, 1e30], True),
            ("float16", [300.0, 300.0], True),
            ("bfloat16", [1e30, 1e30], True),
            ("float64", [1e30, 1e30], False),
            ("float16", [100.0, 30.0], False),
            ("float16", [1e-4, 1e-4], True),
            ("float32", [1e-4, 1e-4], False),
        ],
    )
    def test_norms_beyond_the_range_are_open(
        self, dtype: str, row: list[float], trouble: bool
    ) -> None:
        assert bounded([row], 1e-5, profile=TORCH, dtype=dtype).open.tolist() == [trouble]

    def test_a_wider_dtype_has_a_narrower_bound(self) -> None:
        rows = [[3.0, 4.0, 12.0]]
        limits = [
            bounded(rows, 1.0, dtype=dtype).bound.max()
            for dtype in ("bfloat16", "float16", "float32", "float64")
        ]
        assert limits == sorted(limits, reverse=True)
        assert limits[-1] < 1e-14
        assert 1e-3 < limits[0] < 0.2

    def test_each_row_by_itself(self) -> None:
        got = bounded([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], 1.0)
        assert got.kept.tolist() == [False, True, True]
        assert got.norm == pytest.approx([5.0, 0.5, 0.0])


class TestViews:
    def test_every_step_sees_the_table_before_it(self) -> None:
        after = W + 1
        steps = (
            Call(Placed(np.array([1]))),
            Backward((0,), (Placed(np.ones((1, 3))),)),
            Call(Placed(np.array([2]))),
        )
        case = Case("", TORCH, Placed(W), Options(), "grad", "functional", steps)
        seen = StepSeen(None, MemorySeen(after, True, {}, True))
        shown = list(views(case, Outcome((seen, seen, seen))))
        assert [view.before[0, 0] for view in shown] == [0.1, 1.1, 1.1]
        assert [view.position for view in shown] == [0, 1, 2]

    def test_a_run_that_broke_off_shows_what_it_did(self) -> None:
        steps = (Call(Placed(np.array([1]))), Backward((0,), (Placed(np.ones((1, 3))),)))
        case = Case("", TORCH, Placed(W), Options(), "grad", "functional", steps)
        seen = StepSeen(None, MemorySeen(W, True, {}, True))
        assert len(list(views(case, Outcome((seen,))))) == 1
