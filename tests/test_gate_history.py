"""embconform gate --history: drift is found, noise is not, and asv's own files are read."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("asv", reason="asv is in the extra 'history'")
pytest.importorskip("ruptures", reason="ruptures is in the extra 'history'")

from embconform.commands import main
from embconform.performance.gate import asv_results
from embconform.performance.gate.decision import F64
from embconform.performance.gate.history import (
    ALARM,
    SHORTEST,
    Series,
    best_gain,
    change_points,
    examine,
    penalty,
)

COMMITS = 100
DRIFT = np.log1p(np.clip((np.arange(COMMITS) - 30) * 0.0025, 0, 0.1))
"""A tenth in 40 commits, a quarter of a percent each."""


def series(values: F64, name: str = "x", **options: Any) -> Series:
    return Series(name, tuple(f"c{k}" for k in range(len(values))), tuple(values), **options)


def share(found: Callable[[np.random.Generator], bool], runs: int) -> float:
    rng = np.random.default_rng(0)
    return sum(found(rng) for _ in range(runs)) / runs


@pytest.mark.parametrize("count", [20, COMMITS])
def test_noise_alone_shows_no_change(count: int) -> None:
    """Tails so heavy that the variance is infinite: a false alarm in at most 2% (of 800)."""

    def alarmed(rng: np.random.Generator) -> bool:
        return bool(change_points(0.05 * rng.standard_t(2, count), ALARM))

    assert share(alarmed, 800) <= 0.02


def test_the_penalty_is_what_keeps_alarms_away() -> None:
    def alarmed(rng: np.random.Generator) -> bool:
        return bool(change_points(rng.normal(size=COMMITS), 0.5))

    assert share(alarmed, 100) > 0.3


def test_drift_that_no_commit_shows_is_found() -> None:
    """3% of noise a commit, twelve times the step: found in at least 95% of 200 histories."""

    def drifted(rng: np.random.Generator) -> bool:
        values = np.exp(DRIFT + rng.normal(0, 0.03, COMMITS))
        (found,) = examine([series(values)])
        return found.regressed and 0.05 < found.worse < 0.2

    assert share(drifted, 200) >= 0.95


def test_a_step_is_found_where_it_is() -> None:
    rng = np.random.default_rng(1)
    values = np.exp(0.1 * (np.arange(COMMITS) >= 60) + rng.normal(0, 0.02, COMMITS))
    found = examine([series(values), *(series(rng.normal(1, 0.02, COMMITS)) for _ in range(9))])
    (change,) = found[0].changes
    assert abs(int(change.commit[1:]) - 60) <= 2
    assert change.size == pytest.approx(0.105, abs=0.02)
    assert found[0].regressed
    assert not any(other.changes for other in found[1:])


def test_better_is_no_regression_and_units_say_what_is_better() -> None:
    values = np.repeat([2.0, 1.0], 20) + np.random.default_rng(2).normal(0, 0.01, 40)
    (faster,) = examine([series(values)])
    (fewer,) = examine([series(values, more_is_worse=False)])
    assert faster.changes
    assert not faster.regressed
    assert fewer.regressed
    assert fewer.worse == pytest.approx(1, abs=0.05)


def test_what_was_put_right_again_is_no_regression() -> None:
    values = np.repeat([1.0, 1.2, 1.0], 20) + np.random.default_rng(3).normal(0, 0.01, 60)
    (found,) = examine([series(values)])
    assert len(found.changes) == 2
    assert not found.regressed


def test_counts_that_are_equal_but_for_a_step() -> None:
    (found,) = examine([series(np.repeat([0.0, 4.0], 15))])
    (change,) = found.changes
    assert change.commit == "c15"
    assert change.size == float("inf")
    assert found.regressed
    (still,) = examine([series(np.full(40, 7.0))])
    assert not still.changes
    assert not still.short


def test_a_change_too_small_to_matter_is_left_out() -> None:
    values = np.repeat([1.0, 1.005], 40) + np.random.default_rng(4).normal(0, 1e-4, 80)
    assert change_points(values, ALARM)
    (found,) = examine([series(values)])
    assert not found.changes


def test_few_commits_are_said_to_be_too_few() -> None:
    (found,) = examine([series(np.array([1.0] * 3 + [9.0] * 3))])
    assert found.short
    assert not found.changes
    assert examine([series(np.arange(5.0))])[0].short


def test_the_penalty_grows_with_the_family() -> None:
    limits = [penalty(COMMITS, alarm) for alarm in (0.1, 0.01, 0.001, 1e-5)]
    assert limits == sorted(limits)
    assert limits[2] == pytest.approx(16.6, abs=1.5), "simulated apart, with 20,000 draws"


def test_the_best_split_by_hand() -> None:
    scores = np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    assert best_gain(scores) == pytest.approx(6.0)
    assert SHORTEST == 3


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main.run(["gate", *arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """asv's configuration, with a repository of three commits beside it."""
    from repository import PLAIN, Repository

    top = tmp_path / "user"
    top.mkdir()
    repository = Repository(top)
    for k in range(3):
        repository.commit(f"{PLAIN}\n# {k}\n")
    file = top / "asv.conf.json"
    file.write_text(json.dumps({"version": 1, "project": "x", "repo": ".", "results_dir": "out"}))
    return file


WHERE = {
    "cpu": "a processor", "cores": "2", "system": "Linux 6.1 x86_64", "memory": "1.0 GiB, 1 free",
    "torch": "2.13.0",
}  # fmt: skip


def record(config: Path, values: F64, name: str = "speed.track", unit: str = "seconds") -> None:
    """Write a history as asv does, with asv's own code."""
    from asv.machine import Machine
    from asv.results import Results
    from asv.runner import BenchmarkResult

    folder = config.parent / "out"
    machine = Machine()
    machine.__dict__.update(machine="box", os="", arch="", cpu="", num_cpu="", ram="")
    machine.save(str(folder))
    for k, value in enumerate(values):
        results = Results(
            {**machine.__dict__, "python": "3.11"},
            {},
            f"{k:08x}{0:032x}",
            k * 1000,
            "3.11",
            "env",
            {},
        )
        results.add_result(
            {"name": name, "version": "1", "params": [["'a'", "'b'"]]},
            BenchmarkResult(
                result=[float(value), None], samples=[None] * 2, number=[None] * 2, errcode=0,
                stderr="", profile=None,
            ),
        )  # fmt: skip
        results.save(str(folder))
    (folder / "benchmarks.json").write_text(json.dumps({name: {"unit": unit}, "version": 2}))


def test_the_command_reads_asvs_results(config: Path, tmp_path: Path, call: Call) -> None:
    rng = np.random.default_rng(5)
    record(config, np.exp(DRIFT + rng.normal(0, 0.01, COMMITS)))
    out = tmp_path / "a.json"
    code, said, err = call("--history", str(config), "--json", str(out))
    assert code == 1, err
    assert "speed.track(a) on box, env" in said
    assert "worse than at its best" in said
    assert "1 series of up to 100 commits" in said
    (found,) = json.loads(out.read_text())["series"]
    assert found["regressed"]
    assert found["worse"] == pytest.approx(0.1, abs=0.03)
    record(config, rng.normal(1, 0.01, COMMITS))
    assert call("--history", str(config))[0] == 0
    record(config, np.linspace(1, 2, COMMITS), unit="cases/s")
    assert call("--history", str(config))[0] == 0
    record(config, np.linspace(2, 1, COMMITS), unit="cases/s")
    assert call("--history", str(config))[0] == 1


def test_a_short_history_is_inconclusive(config: Path, call: Call) -> None:
    record(config, np.arange(4.0))
    code, said, _ = call("--history", str(config))
    assert code == 3
    assert "1 of them are too short" in said


def test_what_the_gate_writes_asv_and_the_history_read(config: Path) -> None:
    from asv.results import iter_results

    commits = _commits(config.parent)
    for k, commit in enumerate(commits):
        asv_results.write(config, commit, {"gpt2-token forward": 1e-6 * (k + 1)}, WHERE)
    asv_results.write(config, commits[0], {"other forward": 5.0}, WHERE)
    assert len(list(iter_results(str(config.parent / "out")))) == len(commits)
    found = {s.name.partition(" ")[0]: s for s in asv_results.read(config)}
    assert found["gate.gpt2-token.forward"].values == pytest.approx([1e-6, 2e-6, 3e-6])
    assert found["gate.other.forward"].values == (5.0,)


def _commits(top: Path) -> list[str]:
    done = subprocess.run(
        ["git", "rev-list", "--reverse", "HEAD"],
        cwd=top, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--history", "none.json"], "no file none.json"),
        (["--history", "--base", "HEAD"], "give --base REV, or --calibrate N or --history instead"),
        (["--base", "HEAD"], "give --target TARGET"),
        (["--target", "x", "--base", "HEAD", "--asv", "none.json"], "no file none.json"),
    ],
)
def test_calls_that_can_not_be_used(arguments: list[str], said: str, call: Call) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_no_results_are_said_to_be_none(config: Path, call: Call) -> None:
    code, _, err = call("--history", str(config))
    assert code == 2
    assert "no results of asv stand under" in err
    config.write_text("{}")
    assert call("--history", str(config))[0] == 2
