"""The soak tells memory that grows from memory that does not."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from embconform.proof.soak import FLAT, Sample, growth, render, watch

SERVER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {target!r}])  # {name}
child.wait()
"""
JUDGES = """
import subprocess, sys
subprocess.run([sys.executable, "-c", {server!r}], check=True)
"""
GROWS = """
import os, time
kept = []
for _ in range(60):
    kept.append(b'x' * 2**20)
    time.sleep(0.02)
os._exit(0)
"""
"""Ends with what it holds: Python would give it back first, and a sample might come after."""


def samples(hourly: float, noise: float = 3.0, minutes: int = 20) -> list[Sample]:
    rng = random.Random(0)
    return [
        Sample(s, 100 + rng.uniform(-noise, noise), 300 + hourly * s / 3600 + rng.uniform(-9, 9))
        for s in range(0, 60 * minutes, 5)
    ]


@pytest.mark.parametrize("hourly", [0.0, -200.0, FLAT / 3])
def test_what_is_flat(hourly: float) -> None:
    found = growth(samples(hourly), "target")
    assert found.flat
    assert found.low <= hourly <= found.high


@pytest.mark.parametrize("hourly", [2.5 * FLAT, 600.0])
def test_what_grows(hourly: float) -> None:
    made = samples(hourly)
    assert not growth(made, "target").flat
    assert growth(made, "judges").flat


def test_what_is_used_while_caches_fill_is_no_growth() -> None:
    filling = [Sample(s, min(50 + s, 300), 300) for s in range(0, 1200, 5)]
    assert growth(filling, "judges").flat


@pytest.mark.parametrize("made", [[], samples(0)[:10], [Sample(s, 90, 0) for s in range(99)]])
def test_too_few_samples_are_no_verdict(made: list[Sample]) -> None:
    with pytest.raises(ValueError, match="too few"):
        growth(made, "target")


def test_the_page_says_which_grows() -> None:
    made = samples(600)
    grown = {role: growth(made, role) for role in ("judges", "target")}
    page = render(made, grown, "embconform validate eager", 0, ["round 3"])
    assert "| judges |" in page
    assert page.count("flat |") == page.count("grows |") == 1
    assert "exit code 0: no false alarm" in page
    assert "round 3" in page
    assert "| 19 to 20 | 10" in page
    found = render(made, grown, "embconform validate eager", 1, [], told="lookup.rows  MUST")
    assert "no false alarm" not in found
    assert "lookup.rows  MUST" in found


def test_the_processes_that_are_read() -> None:
    server = SERVER.format(target=GROWS, name="fork_server")
    process = subprocess.Popen([sys.executable, "-c", JUDGES.format(server=server)], text=True)
    made = list(watch(process, 0.05))
    assert process.returncode == 0
    with_target = [sample.target for sample in made if sample.target]
    assert with_target[-1] > with_target[0] + 20
    assert max(sample.judges for sample in made) < min(sample.judges for sample in made) + 20
