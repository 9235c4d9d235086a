"""Workloads, index streams, floors, statistics: what stands beside every time."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from performance_support import EAGER, cell, target, workload
from scipy.stats import zipfian

from embconform.performance import ids as streams
from embconform.performance import passes
from embconform.performance.floors import FOOTPRINTS, Bandwidth, Traffic, traffic
from embconform.performance.measure import Status, measure
from embconform.performance.passes import PASSES, make_inputs
from embconform.performance.statistics import FEWEST, Estimate, exponent, median, spread
from embconform.performance.workloads import LEAST_ROWS, WORKLOADS, find, fit
from embconform.reference.text import python_documentation

RNG = np.random.default_rng(0)


def test_every_workload_has_a_name_of_its_own_and_sources() -> None:
    names = [workload.name for workload in WORKLOADS]
    assert len(set(names)) == len(names)
    for entry in WORKLOADS:
        assert entry.table.source
        assert entry.source
        assert entry.dtype in ("float32", "bfloat16", "float16")
    assert {entry.dtype for entry in WORKLOADS} == {"float32", "bfloat16", "float16"}
    assert {entry.ids for entry in WORKLOADS} == set(streams.KINDS)
    assert {entry.padding for entry in WORKLOADS} == {0.0, 0.3, 0.9}
    assert {entry.count for entry in WORKLOADS} >= {1, 4_096, 8_192, 713_000}


def test_workloads_are_found_by_patterns_in_their_order() -> None:
    assert find(None)
    assert all(entry.default for entry in find(None))
    assert find("nothing") == []
    both = find("gpt2-token*, bert-*-pad90-*, gpt2-token*")
    assert [entry.table.name for entry in both] == ["gpt2", "bert"]
    assert len(find("*")) == len(WORKLOADS)


def test_a_workload_that_fits_stays_as_it_is() -> None:
    entry = workload()
    assert fit(entry, 2**30) is entry


@pytest.mark.parametrize("entry", WORKLOADS, ids=lambda entry: entry.name)
@pytest.mark.parametrize("free", [2**24, 2**28, 2**32])
def test_a_workload_adapts_to_the_memory_and_says_so(entry: object, free: int) -> None:
    assert isinstance(entry, type(WORKLOADS[0]))
    fitted = fit(entry, free)
    assert (fitted.adapted == "") is (fitted is entry)
    assert fitted.bytes <= free or fitted.rows == LEAST_ROWS
    if fitted.rows < entry.rows:
        assert f"{fitted.rows:,} rows instead of {entry.rows:,}" in fitted.adapted
    if fitted.count < entry.count:
        assert f"{fitted.count:,} indices instead of {entry.count:,}" in fitted.adapted


@pytest.mark.parametrize("kind", streams.KINDS)
@pytest.mark.parametrize("padding", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("rows", "count"), [(2, 5), (100, 1), (5_000, 12_800)])
def test_indices_are_rows_of_the_table(kind: str, padding: float, rows: int, count: int) -> None:
    ids = streams.draw(kind, rows, count, padding, RNG)
    assert ids.shape == (count,)
    assert ids.dtype == np.int64
    assert ids.min() >= 0
    assert ids.max() < rows
    if padding and count > 1_000:
        assert np.mean(ids == streams.PADDING) == pytest.approx(padding, abs=0.01)


def test_kinds_of_indices_are_what_they_say() -> None:
    draws = {kind: streams.draw(kind, 1_000, 5_000, 0, RNG) for kind in streams.KINDS}
    assert np.all(np.diff(draws["sorted"]) >= 0)
    assert len(np.unique(draws["equal"])) == 1
    assert np.bincount(draws["uniform"], minlength=1_000).max() < 25
    counts = np.bincount(draws["zipf"], minlength=1_000)
    assert counts[0] > 10 * counts[50:60].mean()
    text = python_documentation().ids
    found = streams.draw("text", len(python_documentation().words), 50, 0, RNG)
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([text, text[:50]]), 50)
    assert np.any(np.all(windows == found, axis=1))


def test_unknown_indices_and_tables_without_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no ids called 'x'"):
        streams.draw("x", 10, 1, 0, RNG)
    with pytest.raises(ValueError, match="1 rows leave no row beside padding"):
        streams.draw("uniform", 1, 1, 0.3, RNG)


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.4])
def test_the_fit_of_zipfs_law_finds_the_exponent(exponent: float) -> None:
    chances = zipfian(exponent, 800).pmf(np.arange(1, 801))
    drawn = np.random.default_rng(1).choice(801, 60_000, p=[0.0, *chances / chances.sum()])
    counts = np.sort(np.bincount(drawn, minlength=801)[1:])[::-1].astype(float)
    assert streams.fit_zipf(counts) == pytest.approx(exponent, abs=0.05)


def test_zipfs_law_fits_real_text() -> None:
    assert 0.6 < streams.zipf_exponent() < 1.3


def test_values_of_a_large_table_come_again_elsewhere_in_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passes, "_DRAWN", 97)
    weight = make_inputs(workload(rows=97, width=8), "cpu", 0).weight
    assert weight.unique().numel() == 97
    assert len(weight.unique(dim=0)) == 97


def test_the_bytes_that_must_move() -> None:
    inputs = make_inputs(workload(rows=100, width=8, count=50, ids="equal"), "cpu", 0)
    line, n, table = 8 * 4, 50, 100 * 8 * 4
    assert traffic(PASSES["forward"], inputs) == Traffic(8 * n + line, n * line)
    assert traffic(PASSES["backward"], inputs) == Traffic(8 * n + n * line, table)
    assert traffic(PASSES["scale"], inputs) == traffic(PASSES["backward"], inputs)
    assert traffic(PASSES["sparse"], inputs) == Traffic(8 * n, 0)
    assert traffic(PASSES["max_norm"], inputs) == Traffic(8 * n + line, n * line + line // 2)
    assert traffic(PASSES["sgd"], inputs) == Traffic(
        16 * n + line + n * line + 2 * table, n * line + 2 * table
    )


def test_a_larger_copy_never_has_a_higher_ceiling() -> None:
    bandwidth = Bandwidth("cpu", seconds=0.01)
    ceilings = [bandwidth.at(size) for size in (1, *FOOTPRINTS, 10 * FOOTPRINTS[-1])]
    assert all(a >= b for a, b in pairwise(ceilings))
    assert ceilings[-1] == bandwidth.best[FOOTPRINTS[-1]]
    moved = Traffic(1_000, 24)
    assert bandwidth.floor_seconds(moved, cold=False) == 1_024 / ceilings[0]
    assert bandwidth.floor_seconds(moved, cold=True) == 1_024 / ceilings[-1]


def test_a_copy_of_the_table_stands_near_the_ceiling() -> None:
    def copies(input, weight):  # noqa: A002
        return weight.clone()  # as many bytes as the lookup of all rows, in their order

    where = cell(rows=4_000, width=64, count=4_000, ids="sorted")
    bandwidth = Bandwidth("cpu", seconds=0.05)
    eager, copied = measure(
        where, [target(EAGER), target(copies)], bandwidth=bandwidth, seconds=0.2, memory=False
    )
    assert copied.status is Status.WRONG
    assert eager.share_of_ceiling < 1.2
    assert eager.share_of_ceiling > 0.001


def test_a_median_has_an_interval_where_there_are_enough_samples() -> None:
    assert not median([3.0, 1.0, 2.0]).bounded
    assert median([3.0, 1.0, 2.0]).value == 2
    found = median(np.arange(1, FEWEST + 1))
    assert found.bounded
    assert (found.low, found.high) == (1, FEWEST)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    found = [median(rng.lognormal(0, 1, 25)) for _ in range(400)]
    covered = np.mean([e.low <= 1 <= e.high for e in found])
    assert 0.92 <= covered <= 1


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_exponents_are_found_beside_a_fixed_cost(power: float) -> None:
    sizes = np.logspace(0, 6, 7)
    costs = 5.0 + sizes**power
    assert exponent(sizes, costs).value == pytest.approx(power, abs=0.02)
    assert math.isnan(exponent([10.0], [1.0]).value)


def test_spread() -> None:
    assert spread([1.0, 1.0, 1.0]) == 0
    assert spread([0.0]) == 0
    assert spread([0.9, 1.0, 1.1]) == pytest.approx(0.148, abs=0.001)
    assert not Estimate(1.0).bounded


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", list(PASSES))
@pytest.mark.parametrize("padding", [0.0, 0.3])
def test_eager_is_right_in_every_pass(name: str, dtype: str, padding: float) -> None:
    where = cell(name, dtype=dtype, padding=padding, count=200)
    (found,) = measure(where, [target(EAGER)], seconds=0.01, memory=False)
    assert found.status is Status.OK, found.detail
    assert found.checked >= 2
    assert len(found.samples) > FEWEST


@pytest.mark.parametrize("name", ["forward", "backward", "max_norm"])
def test_the_textbook_layer_is_held_against_its_own_profile(name: str) -> None:
    from embconform.backends.textbook import BACKEND

    where = cell(name, padding=0.3, count=200)
    (found,) = measure(where, [target(BACKEND)], seconds=0.01, memory=False)
    assert found.status is Status.OK, found.detail


@pytest.mark.parametrize("name", ["forward", "backward", "sgd"])
def test_a_backend_with_a_module_alone(name: str) -> None:
    backend = replace(EAGER, name="module", functional=None)
    (found,) = measure(cell(name), [target(backend)], seconds=0.01, memory=False)
    assert found.status is Status.OK, found.detail


@pytest.mark.parametrize("name", list(PASSES))
def test_targets_of_one_cell_find_the_same_table(name: str) -> None:
    where = cell(name)
    inputs = make_inputs(where.workload, "cpu", 5)
    before = inputs.weight.clone()
    measure(where, [target(EAGER, "a"), target(EAGER, "b")], seconds=0.01, inputs=inputs)
    touched = torch.unique(torch.stack([indices[0] for indices in inputs.indices]))
    changed = (inputs.weight != before).any(dim=1)
    changed[touched] = False
    assert not changed.any()


def test_cuda_says_that_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device; the message is for those that have none")
    from embconform.performance.cuda import read_chip

    assert read_chip() is None
