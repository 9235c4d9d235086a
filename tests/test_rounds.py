"""--for goes on with new seeds until its time is over."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest

from embconform.backends.adapt import as_backend
from embconform.commands import main
from embconform.conformance.cases.strata import strata
from embconform.conformance.isolation.isolated import Isolated
from embconform.conformance.report import Report, Status
from embconform.conformance.running.engine import RunOptions, Spread, run
from embconform.conformance.running.rounds import Beat, Rounds
from embconform.mutants.kernel import Kernel
from embconform.reference.clause import Profile

OPTIONS = RunOptions(Profile.TORCH, budget="quick", select="lookup.rows", max_examples=40, seed=7)
RIGHT = as_backend("kernel", Kernel())


def rounds(number: int, options: RunOptions = OPTIONS, backend=RIGHT) -> tuple[Report, list[Beat]]:  # type: ignore[no-untyped-def]
    """Go on for a number of rounds."""
    told: list[Beat] = []
    spread = Spread(rounds=Rounds(3600, told.append))
    stop = lambda: len(told) >= number  # noqa: E731
    return run(backend, options, target="t", stop=stop, spread=spread), told


def test_each_round_has_the_next_seed_and_counts() -> None:
    report, told = rounds(3)
    assert [beat.seed for beat in told] == [7, 8, 9]
    assert [beat.rounds for beat in told] == [1, 2, 3]
    alone = [
        run(RIGHT, replace(OPTIONS, seed=seed), target="t").clauses[0].exercised
        for seed in (7, 8, 9)
    ]
    assert report.clauses[0].exercised == sum(alone)
    assert report.notes == ("3 whole rounds, seeds 7 to 9",)
    assert report.part is None


def test_a_failure_of_a_later_round_is_found_and_shrunk() -> None:
    count = 0

    def embed(input, weight):  # type: ignore[no-untyped-def]  # noqa: A002
        nonlocal count
        count += 1
        return weight[input] * (1 if count <= 60 else 2)

    report, told = rounds(3, backend=as_backend("late", embed))
    assert [beat.broken for beat in told] == [0, 1, 1]
    (result,) = report.clauses
    assert result.status is Status.FAIL
    assert result.failure is not None
    assert result.failure.indices == 1


PIDS = """
import os
from pathlib import Path

def embed(input, weight):
    with Path(__file__).with_name("pids").open("a") as file:
        print(os.getpid(), file=file)
    return weight[input]
"""


def test_each_round_has_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "pids.py").write_text(PIDS)
    with Isolated(f"{tmp_path / 'pids.py'}:embed") as isolated:
        report, told = rounds(3, backend=isolated)
    assert len(told) == 3
    assert [result.status for result in report.clauses] == [Status.PASS]
    assert len(set((tmp_path / "pids").read_text().split())) == 3


def test_the_command_stops_at_its_time(capfd: pytest.CaptureFixture[str]) -> None:
    call = ["validate", "eager", "--budget", "quick", "--max-examples", "60", "--for", "12s"]
    assert main.run([*call, "--select", "lookup.rows", "--workers", "2"]) == 0
    out, err = capfd.readouterr()
    assert "round 1, seed 0: " in err
    assert "round 2, seed 1: " in err
    assert "then the time was over" in out


def test_the_strata_of_seeds_that_are_over_are_not_kept() -> None:
    def objects(seeds: range) -> int:
        for seed in seeds:
            strata(RIGHT, Profile.TORCH, arrays=1, seed=seed)
        gc.collect()
        return len(gc.get_objects())

    before = objects(range(4))
    assert objects(range(4, 8)) - before < 500


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--for", "soon"), "soon is no time up to 30 days"),
        (("--for", "0s"), "0s is no time"),
        (("--for", "1000h"), "1000h is no time"),
        (("--for", "1m", "--shard", "1/2"), "leave --shard, --resume and --timeout out"),
        (("--for", "1m", "--timeout", "9"), "leave --shard, --resume and --timeout out"),
    ],
)
def test_refusals(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
    assert main.run(["validate", "eager", *arguments]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
