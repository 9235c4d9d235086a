"""Drawn cases: legal where they should be, wrong where they should be, the same for a seed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase

from embconform.backends.eager import BACKEND as EAGER
from embconform.conformance.cases.case import (
    Backward,
    Call,
    Case,
    DoubleBackward,
    Placed,
    WriteIndices,
    WriteWeight,
)
from embconform.conformance.cases.layouts import lay_out, without_repeats
from embconform.conformance.cases.strata import strata
from embconform.conformance.cases.structure import PLAIN, Structure
from embconform.conformance.running.driver import Batch, Driver
from embconform.conformance.running.work import Draws
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, bits

STEP = 20
"""Every twentieth stratum is drawn from for the digest that is compared between processes."""


def draw(structure: Structure, *, profile: Profile = Profile.TORCH, seed: int = 0) -> list[Case]:
    """Draw cases as a run does."""
    found: list[Case] = []
    driver = Driver(profile, seed, compiled=False)

    def note(batch: Batch) -> None:
        found.extend(case for case, _ in batch)

    driver.drive(Draws((structure,), 3), note, Phase.generate)
    return found


@cache
def everything(profile: Profile) -> list[tuple[Structure, Case]]:
    structures = strata(EAGER, profile, arrays=1, seed=0)
    return [(s, case) for s in structures for case in draw(s, profile=profile)]


def drawn(where: Callable[[Structure], bool] = lambda _: True) -> list[tuple[Structure, Case]]:
    return [(s, case) for p in Profile for s, case in everything(p) if where(s)]


def placed_in(case: Case) -> list[Placed]:
    upstream = [p for step in case.steps if isinstance(step, Backward) for p in step.upstream]
    return [case.weight, *(call.indices for _, call in case.calls), *upstream]


def same(first: Array, second: Array) -> bool:
    return first.shape == second.shape and np.array_equal(bits(first), bits(second))


def written_indices(case: Case) -> list[Array]:
    return [step.values for step in case.steps if isinstance(step, WriteIndices)]


class TestLegal:
    def test_ids_are_in_range(self) -> None:
        for _, case in drawn():
            legal = [call.indices.values for _, call in case.calls if not call.must_raise]
            for values in (*legal, *written_indices(case)):
                assert values.dtype in (np.int32, np.int64)
                assert ((values >= 0) & (values < case.rows)).all()

    def test_every_case_calls_and_starts_with_it(self) -> None:
        for _, case in drawn():
            assert isinstance(case.steps[0], Call)

    def test_padding_is_in_range(self) -> None:
        for s, case in drawn(lambda s: not s.fault.startswith(("padding", "weight"))):
            given = case.options.padding_idx
            assert (given is None) is (s.padding == "none")
            assert given is None or -case.rows <= given < max(case.rows, 1)

    def test_options_are_what_the_stratum_says(self) -> None:
        for s, case in drawn():
            options = case.options
            assert (options.max_norm is None) is (s.bound == "none")
            assert (options.max_norm == 0) is (s.bound == "zero")
            assert options.sparse is s.gradient.startswith("sparse")
            assert options.scale_grad_by_freq is s.gradient.endswith("scaled")

    def test_shapes_and_dtypes_are_what_the_stratum_says(self) -> None:
        for s, case in drawn(lambda s: s.program != "error"):
            assert case.dtype == s.dtype
            assert (case.mode, case.entry) == (s.mode, s.entry)
            for _, call in case.calls:
                assert call.indices.values.ndim == s.rank
                assert call.indices.values.dtype.name == s.index_dtype
                assert call.indices.layout == s.index_layout

    def test_upstream_gradients_fit_the_outputs(self) -> None:
        for s, case in drawn():
            calls, width = dict(case.calls), case.weight.values.shape[-1:]
            for step in case.steps:
                if isinstance(step, Backward):
                    for number, placed in zip(step.calls, step.upstream, strict=True):
                        shape = calls[number].indices.values.shape
                        assert placed.values.shape == (*shape, *width)
                        assert placed.values.dtype.name == s.dtype
                if isinstance(step, DoubleBackward):
                    assert step.direction.shape == case.weight.values.shape

    def test_without_grad_there_is_no_backward_pass(self) -> None:
        for _, case in drawn(lambda s: s.mode != "grad"):
            assert not any(isinstance(step, Backward) for step in case.steps)

    def test_zero_strides_repeat_equal_values(self) -> None:
        for _, case in drawn():
            for placed in placed_in(case):
                laid = lay_out(placed)
                assert same(laid.view(laid.base), placed.values)
                if placed.layout == "windows":
                    assert same(placed.values[..., 1:, :-1], placed.values[..., :-1, 1:])
                    continue
                own = without_repeats(placed.layout, placed.values.shape)
                head = placed.values[tuple(slice(length) for length in own)]
                assert same(np.broadcast_to(head, placed.values.shape), placed.values)

    def test_a_reused_tensor_reads_as_its_call_says(self) -> None:
        for _, case in drawn():
            current: dict[int, Array] = {}
            for position, step in enumerate(case.steps):
                if isinstance(step, WriteIndices):
                    current[step.call] = step.values
                elif isinstance(step, Call) and step.reuse is not None:
                    assert same(current[step.reuse], step.indices.values)
                elif isinstance(step, Call):
                    current[position] = step.indices.values


def wrong_with(case: Case) -> set[str]:
    """What a call that must be refused has wrong with it."""
    call = next(call for _, call in case.calls if call.must_raise)
    values, padding = call.indices.values, case.options.padding_idx
    found = set()
    if values.dtype not in (np.int32, np.int64):
        found.add("index")
    elif case.weight.values.ndim == 2 and ((values < 0) | (values >= case.rows)).any():
        found.add("range")
    if case.weight.values.ndim != 2:
        found.add("weight")
    elif padding is not None and padding != 0 and not -case.rows <= padding < case.rows:
        found.add("padding")
    return found


class TestWrong:
    def test_faulty_calls_are_wrong_in_the_one_way_meant(self) -> None:
        for s, case in drawn(lambda s: s.program == "error"):
            kind = s.fault.partition("-")[0]
            meant = kind if kind in {"index", "weight", "padding"} else "range"
            assert wrong_with(case) == {meant}

    def test_a_good_call_follows_where_one_can(self) -> None:
        for s, case in drawn(lambda s: s.program == "error" and s.size != "no-rows"):
            if not s.fault.startswith(("weight", "padding")):
                *before, last = [call.must_raise for _, call in case.calls]
                assert before in ([True], [False, True]) or s.size == "crowd"
                assert any(before)
                assert not last

    def test_only_faults_must_be_refused(self) -> None:
        for _, case in drawn(lambda s: s.fault == "none"):
            assert not any(call.must_raise for _, call in case.calls)

    def test_far_ids_are_legal_in_32_bits(self) -> None:
        found = drawn(lambda s: s.fault == "far-positive" and s.size != "no-columns")
        low = [
            int(call.indices.values.max()) % 2**32 < case.rows
            for _, case in found
            for _, call in case.calls
            if call.must_raise
        ]
        assert any(low)


def contents(case: Case) -> list[Any]:
    """Everything of a case, as bytes and plain values."""
    arrays = [placed.values for placed in placed_in(case)] + written_indices(case)
    layouts = [placed.layout for placed in placed_in(case)]
    steps = [type(step).__name__ for step in case.steps]
    return [case.options, layouts, steps, [(a.shape, a.dtype.str, a.tobytes()) for a in arrays]]


def digest() -> str:
    """Sum up the strata of both profiles, and the cases of some."""
    total = hashlib.sha256()
    for profile in Profile:
        structures = strata(EAGER, profile, arrays=2, seed=5)
        total.update("\n".join(structure.name for structure in structures).encode())
        for structure in structures[::STEP]:
            for case in draw(structure, profile=profile, seed=5):
                total.update(repr(contents(case)).encode())
    return total.hexdigest()


class TestSeeds:
    def test_a_seed_gives_the_same_cases(self) -> None:
        for structure in strata(EAGER, Profile.TORCH, arrays=1, seed=0)[::STEP]:
            once, again = draw(structure, seed=3), draw(structure, seed=3)
            assert list(map(contents, once)) == list(map(contents, again))

    @pytest.mark.parametrize(
        "structure",
        [PLAIN, Structure(bound="p2"), Structure(size="many"), Structure(table="special")],
    )
    def test_another_seed_gives_other_values(self, structure: Structure) -> None:
        tables = [
            {case.weight.values.tobytes() for case in draw(structure, seed=seed)}
            for seed in range(3)
        ]
        for first, second in ((0, 1), (1, 2), (0, 2)):
            assert tables[first] != tables[second]

    def test_another_stratum_gives_other_values(self) -> None:
        first, second = (draw(Structure(padding=padding)) for padding in ("zero", "last"))
        assert list(map(contents, first)) != list(map(contents, second))

    def test_another_process_draws_the_same(self) -> None:
        """Neither hash randomisation nor the modules that happen to be loaded matter."""
        code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['digest']())"
        found = {digest()}
        for number in ("1", "2"):
            done = subprocess.run(
                [sys.executable, "-c", code, __file__],
                env={**os.environ, "PYTHONHASHSEED": number},
                capture_output=True,
                check=True,
            )
            found.add(done.stdout.decode().strip())
        assert len(found) == 1


class TestPrograms:
    def test_what_is_served_leaves_the_call_between_alone(self) -> None:
        for case in draw(Structure(program="served")):
            before, first, after, backward, *later = case.steps
            assert all(isinstance(c, Call) and c.context for c in (before, after))
            assert isinstance(first, Call)
            assert first.context is None
            assert not later or [type(step) for step in later] == [WriteWeight, Call]
            assert isinstance(backward, Backward)
            assert backward.calls == (1,)

    def test_three_steps_change_their_shapes_and_the_table(self) -> None:
        cases = [c for seed in range(5) for c in draw(Structure(program="steps"), seed=seed)]
        assert all(len(case.calls) == 3 for case in cases)
        assert any(len({c.indices.values.shape for _, c in case.calls}) == 3 for case in cases)


class TestSizes:
    """The sizes at which kernels switch do come up."""

    def counts(self, size: str, seeds: int = 12) -> set[int]:
        return {
            case.most_indices
            for seed in range(seeds)
            for case in draw(Structure(size=size), seed=seed)
        }

    def test_many(self) -> None:
        found = self.counts("many")
        assert len(found) >= 10
        assert min(found) >= 31

    def test_the_most(self) -> None:
        assert self.counts("most", 3) == {1025, 3073}
        assert 5000 in self.counts("hot", 1) <= {5000, 100_000}
        assert self.counts("vast", 3) == {65537, 66001}

    def test_blocks_lie_between_the_thresholds(self) -> None:
        found = [
            case
            for seed in range(12)
            for case in draw(Structure(size="block", padding="inner"), seed=seed)
        ]
        shapes = [case.weight.values.shape for case in found]
        assert len({width % 8 for _, width in shapes}) >= 6
        assert any(rows > 255 for rows, _ in shapes)
        assert len({case.most_indices for case in found}) > 12
        assert all(rows * width <= 60_000 or width == 1 for rows, width in shapes)

    def test_bounds_are_met_exactly(self) -> None:
        structure = Structure(bound="p2", table="spike")
        cases = [case for seed in range(12) for case in draw(structure, seed=seed)]
        met = [(abs(c.weight.values).max(axis=1) == c.options.max_norm).any() for c in cases]
        assert sum(met) > len(met) / 4

    def test_hot_rows_are_hot(self) -> None:
        for case in draw(Structure(size="hot")):
            assert np.bincount(case.calls[0][1].indices.values).max() > 4_900

    def test_tall_tables_are_looked_up_beyond_16_bits(self) -> None:
        cases = [case for seed in range(3) for case in draw(Structure(size="tall"), seed=seed)]
        assert all(case.rows > 2**15 for case in cases)
        assert max(int(call.indices.values.max()) for c in cases for _, call in c.calls) > 2**16

    def test_duplicates_come_up_apart_from_each_other(self) -> None:
        ids = [
            case.calls[0][1].indices.values for seed in range(30) for case in draw(PLAIN, seed=seed)
        ]
        assert any(len(v) > 2 and v[0] == v[-1] != v[1] for v in ids)
