"""The gate's decision on simulated times: false alarms, power, and that each rule is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from scipy import stats

from embconform.performance.gate.costs import weigh
from embconform.performance.gate.course import CHANGE, PLANTED, SILENT, Course
from embconform.performance.gate.decision import (
    F64,
    RULE,
    Call,
    Mean,
    Rule,
    holm,
    look,
    means,
    p_values,
    recurs,
    thresholds,
    upper_bound,
)
from embconform.performance.memory import Memory

BENCHMARKS = 10
RUNS = 1_000


@dataclass
class Machine:
    """A noisy machine: offsets of processes, heavy tails of batches, drift, a planted slowdown.

    `pair` is the scale of a batch's noise, Student's t with 2 degrees of freedom: its variance is
    infinite. `process` is the deviation of a side's offset in a process, and `drift` how much
    slower the machine becomes from one batch to the next. In a share of `burst` of the restarts
    one of the four is slower by 2% to 20% all along.
    """

    rng: np.random.Generator
    slow: F64
    pair: float = 0.01
    process: float = 0.004
    drift: float = 0.01
    rounds: int = 6
    burst: float = 0.0
    planted: float = 0.1
    twin_slow: float = 0.0
    since: int = 0
    until: int = 10**9
    number: int = field(default=0)

    def restart(self, benchmarks: Sequence[int]) -> dict[str, F64]:
        self.number += 1
        count = len(benchmarks)
        slow = self.slow[list(benchmarks)]
        if not self.since < self.number <= self.until:
            slow = np.zeros(count)
        base, head, twin = self.rng.normal(0, self.process, (3, count))
        order = np.argsort(self.rng.random((count, self.rounds, 4)), axis=-1)
        noise = self.drift * order + self.pair * self.rng.standard_t(2, (count, self.rounds, 4))
        if self.burst:
            struck = self.rng.integers(4, size=count)[:, None] == np.arange(4)
            hit = (self.rng.random(count) < self.burst) * self.rng.uniform(0.02, 0.2, count)
            noise += (struck * np.log1p(hit)[:, None])[:, None, :]
        times = (
            noise
            + np.stack(
                [
                    base,
                    head + slow,
                    twin + slow + self.twin_slow,
                    twin + slow + np.log1p(self.planted),
                ],
                axis=-1,
            )[:, None, :]
        )
        pairs = {CHANGE: (1, 0), SILENT: (2, 1), PLANTED: (3, 1)}
        return {
            name: np.median(times[..., a] - times[..., b], axis=-1)
            for name, (a, b) in pairs.items()
        }


def outcome(course: Course) -> str:
    tracks = course.run()
    if course.void:
        return "void"
    if any(track.call is Call.SLOWER for track in tracks):
        return "slower"
    return "open" if any(track.call is Call.OPEN for track in tracks) else "fine"


def rates(runs: int, slowdown: float, rule: Rule = RULE, **noise: float) -> dict[str, float]:
    """Give the share of each outcome, with one benchmark of ten slowed down."""
    rng = np.random.default_rng(1)
    slow = np.zeros(BENCHMARKS)
    slow[3] = np.log1p(slowdown)
    found = [
        outcome(Course(Machine(rng, slow, **noise), BENCHMARKS, rule))  # type: ignore[arg-type]
        for _ in range(runs)
    ]
    return {name: found.count(name) / runs for name in ("fine", "slower", "open", "void")}


def test_false_alarms_of_whole_runs() -> None:
    found = rates(RUNS, 0.0)
    assert found["slower"] + found["void"] <= 0.01
    assert found["fine"] >= 0.95


def test_false_alarms_on_a_bad_machine() -> None:
    found = rates(400, 0.0, pair=0.05, process=0.02, drift=0.03)
    assert found["slower"] + found["void"] <= 0.02
    assert found["open"] > 0.5, "it can't see 3% there, and must say so"


def test_the_rule_is_what_keeps_alarms_away() -> None:
    """A rule of no threshold, no family and a lenient test alarms where ours doesn't."""
    lenient = replace(RULE, alarm=4.0, floor=0.0, factor=0.0, confirm=5, recur=1.0)
    found = rates(100, 0.0, lenient)
    assert found["slower"] + found["void"] > 0.3


@pytest.mark.parametrize(("slowdown", "least"), [(0.1, 0.99), (0.05, 0.9)])
def test_power(slowdown: float, least: float) -> None:
    found = rates(400, slowdown)
    assert found["slower"] >= least
    assert found["fine"] <= 0.01


def test_half_a_percent_is_fine() -> None:
    assert rates(200, 0.005)["fine"] >= 0.9


def test_a_machine_that_sees_no_planted_slowdown_says_nothing() -> None:
    machine = Machine(np.random.default_rng(2), np.zeros(2), planted=0.0)
    course = Course(machine, 2, RULE)
    assert outcome(course) == "open"
    assert {track.why for track in course.tracks} == {"the planted slowdown was not seen"}
    assert course.restarts == RULE.looks[-1]


def test_head_against_head_that_differs_voids_the_run() -> None:
    machine = Machine(np.random.default_rng(3), np.full(2, 0.2), twin_slow=0.3)
    # the threshold is widened by what head against head shows, so only a loud control gets over it
    course = Course(machine, 2, replace(RULE, factor=1.0))
    assert outcome(course) == "void"
    assert all(track.call is not Call.FINE for track in course.tracks)


def test_a_flag_that_does_not_recur_is_no_regression() -> None:
    rng = np.random.default_rng(4)
    once = Course(Machine(rng, np.full(1, 0.1), until=RULE.looks[0]), 1, RULE)
    assert outcome(once) == "open"
    assert once.tracks[0].why == "a flag did not recur in fresh processes"
    assert outcome(Course(Machine(rng, np.full(1, 0.1)), 1, RULE)) == "slower"


def test_it_stops_early_both_ways_and_goes_on_in_doubt() -> None:
    rng = np.random.default_rng(5)
    fine, slow = (
        Course(Machine(rng, np.full(3, slow), pair=0.002, process=0.002), 3, RULE)
        for slow in (0.0, 0.2)
    )
    assert (outcome(fine), fine.restarts) == ("fine", RULE.looks[0])
    assert (outcome(slow), slow.restarts) == ("slower", RULE.looks[0])
    noisy = Course(Machine(rng, np.zeros(1), pair=0.08, process=0.2), 1, RULE)
    assert outcome(noisy) == "open"
    assert noisy.restarts == RULE.looks[-1]


def test_no_time_is_inconclusive() -> None:
    course = Course(Machine(np.random.default_rng(6), np.zeros(2)), 2, RULE, over=lambda: True)
    assert outcome(course) == "open"
    assert {track.why for track in course.tracks} == {"the time was over"}
    assert course.restarts == 2


def test_slower_within_the_threshold_is_not_flagged() -> None:
    rng = np.random.default_rng(7)
    ratios = np.log1p(0.02) + rng.normal(0, 1e-4, (1, 5))
    silent = rng.normal(0, 1e-4, (1, 5))
    seen = look(ratios, silent, silent + 0.095, RULE, 1)
    assert p_values(ratios)[0] < 1e-6
    assert not seen.slower[0]
    assert seen.fine[0]


def test_the_threshold_grows_with_the_machines_own_noise() -> None:
    quiet, loud = np.full((1, 5), 1e-3), np.full((1, 5), 0.05) * [1, -1, 1, -1, 1]
    assert thresholds(quiet, RULE)[0] == pytest.approx(np.log1p(0.03))
    assert thresholds(loud, RULE)[0] == pytest.approx(3 * 0.05 / np.sqrt(5))


def test_p_values_and_bounds_against_scipy() -> None:
    ratios = np.random.default_rng(8).normal(0.01, 0.02, (4, 7))
    theirs = stats.ttest_1samp(ratios, 0.0, axis=1, alternative="greater")
    np.testing.assert_allclose(p_values(ratios), theirs.pvalue)
    high = stats.ttest_1samp(ratios, 0.0, axis=1, alternative="less").confidence_interval(0.99).high
    np.testing.assert_allclose(upper_bound(ratios, 0.01), high)
    assert p_values(np.zeros((1, 5)))[0] == 0.5
    assert p_values(np.full((1, 5), 0.25))[0] == 0.0


def test_trimmed_means_and_their_errors_against_scipy() -> None:
    from scipy.stats import mstats

    ratios = np.random.default_rng(9).standard_t(2, (3, 15))
    student, trimmed = means(15)
    np.testing.assert_allclose(student.middle(ratios), ratios.mean(axis=1))
    np.testing.assert_allclose(student.error(ratios), stats.sem(ratios, axis=1))
    assert trimmed.out == 3
    limits = (0.2, 0.2)
    ours, theirs = trimmed.middle(ratios), mstats.trimmed_mean(ratios, limits, axis=1)
    np.testing.assert_allclose(ours, theirs)
    theirs = [mstats.trimmed_stde(row, limits) for row in ratios]
    np.testing.assert_allclose(trimmed.error(ratios), theirs)
    assert means(9) == (Mean(9),)


@pytest.mark.parametrize("restarts", [5, 10, 15, 20])
@pytest.mark.parametrize("tails", [3, 1_000])
def test_p_values_keep_their_word(restarts: int, tails: int) -> None:
    """Of 100,000 draws without a change at most 1.3 times as many are below p as p says."""
    draws = np.random.default_rng(10).standard_t(tails, (100_000, restarts))
    p = p_values(draws)
    for level in (0.0025, 0.01, 0.1):
        assert (p <= level).mean() <= 1.3 * level


def test_bursts_do_not_decide() -> None:
    """A fifth of the restarts are off; Student's test alone finds 5% in 63% of these runs."""
    quiet, slow = rates(100, 0.0, burst=0.2), rates(100, 0.05, burst=0.2)
    assert quiet["slower"] + quiet["void"] == 0
    assert quiet["fine"] >= 0.97
    assert slow["slower"] >= 0.88
    off = np.full((1, 10), np.log1p(0.05)) + np.array([0, 1, -1, 0, 2, -2, 0, 1, 0, -1]) * 1e-3
    off[0, 3] = -0.2
    student, trimmed = means(10)
    assert student.p_values(off)[0] > 0.01
    assert trimmed.p_values(off)[0] < 1e-4


def test_holm_steps_down_and_stops() -> None:
    p = np.array([0.02, 0.001, 0.04, 0.011])
    assert holm(p, 0.05).tolist() == [True, True, True, True]
    assert holm(np.array([0.02, 0.001, 0.06, 0.03]), 0.05).tolist() == [False, True, False, False]
    assert holm(p, 0.05, family=100).tolist() == [False] * 4


def test_recurring_needs_size_and_certainty() -> None:
    limit = np.array([0.03])
    small, unsure, plain = (
        [0.02] * 5,
        [0.3, -0.2, 0.25, -0.1, 0.2],
        [0.05, 0.051, 0.05, 0.052, 0.049],
    )
    seen = [bool(recurs(np.array([values]), limit, RULE)[0]) for values in (small, unsure, plain)]
    assert seen == [False, False, True]


def memory(peak: int, kept: float = 0.0) -> Memory:
    return Memory(peak, 0.0, 0.0, kept)


def test_memory_has_to_be_more_in_every_process() -> None:
    base = [memory(10 * 2**20), memory(11 * 2**20)]
    assert not weigh(base, base).wrong
    assert "needs 20.0 MiB" in weigh(base, [memory(20 * 2**20), memory(21 * 2**20)]).wrong
    assert not weigh(base, [memory(20 * 2**20), memory(11 * 2**20)]).wrong
    assert not weigh([memory(0), memory(0)], [memory(2**19), memory(2**19)]).wrong
    assert "keeps" in weigh(base, [memory(10 * 2**20, 3072.0)] * 2).wrong
