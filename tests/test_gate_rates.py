"""The gate's rates: whole runs from recorded restarts, and the table that is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from embconform.performance.gate import rates
from embconform.performance.gate.calibration import Trial, _named, _Recorded
from embconform.performance.gate.course import CHANGE, PLANTED, SILENT

COUNT = 10
SLOW, NOT_SLOW = 0.1, 0.05


class Machine:
    """Gives log ratios as a quiet machine would, one slowdown of which is none."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.asked: list[int] = []

    def restart(self, benchmarks: list[int]) -> dict[str, Any]:
        self.asked.append(len(benchmarks))
        means = {CHANGE: 0.0, SILENT: 0.0, PLANTED: 0.095, _named(SLOW): 0.095, _named(NOT_SLOW): 0}
        return {
            name: mean + 0.003 * self.rng.standard_normal(len(benchmarks))
            for name, mean in means.items()
        }


@pytest.fixture
def trial() -> Trial:
    return Trial(_Recorded(Machine(), lambda _: None), COUNT)  # type: ignore[arg-type]


def test_what_is_slower_is_found_and_what_is_not_is_fine(trial: Trial) -> None:
    for benchmark in range(COUNT):
        assert trial.run_with(SLOW, benchmark) == "slower"
        assert trial.finds(SLOW, benchmark)
        assert trial.run_with(NOT_SLOW, benchmark) == "fine"
        assert not trial.finds(NOT_SLOW, benchmark)


def test_restarts_are_measured_once(trial: Trial) -> None:
    for _ in range(2):
        trial.run_with(NOT_SLOW, 0)
    machine = trial.recorded.sampler
    assert isinstance(machine, Machine)
    assert machine.asked == [COUNT] * 5


def _trial(number: int, **other: Any) -> dict[str, Any]:
    plain = {"alarm": False, "void": False, "undecided": False, "restarts": 5, "seconds": 60.0}
    found = {"0.05": "fine" if number else "slower", "0.1": "slower"}
    return {"number": number, "found": found} | plain | other


def test_the_table_counts_what_was_said(tmp_path: Path) -> None:
    trials = [_trial(0), _trial(1, alarm=True), _trial(2, void=True), _trial(3, undecided=True)]
    file = tmp_path / "rates.jsonl"
    file.write_text("".join(json.dumps(trial) + "\n" for trial in trials))
    done = CliRunner().invoke(rates.main, ["render", "--out", str(file)])
    assert done.exit_code == 0
    assert "| the same | 4 | 1 | 1 | 1 | 1 | 60 |" in done.output
    assert "| +5% in one of ten benchmarks | 4 | 1 | 3 | 0 | 0 | |" in done.output
    assert "| +10% in one of ten benchmarks | 4 | 4 | 0 | 0 | 0 | |" in done.output
    assert "at most 75.1% of runs are false alarms" in done.output


def test_the_benchmarks_are_ten_that_there_are() -> None:
    from embconform.performance.gate.benchmarks import MOST
    from embconform.performance.passes import PASSES
    from embconform.performance.workloads import find

    assert len(set(rates.BENCHMARKS)) == MOST
    for name, chosen in rates.BENCHMARKS:
        assert len(find(name)) == 1
        assert chosen in PASSES
