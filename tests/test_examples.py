"""The examples run with any target, learn something, and say what is wrong with a bad target."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.mark.parametrize(
    ("name", "target", "neighbour"),
    [
        ("word_vectors.py", "eager", r"\n  list +\w+ 0\.\d\d, "),
        ("recommendation.py", "textbook", r"\n  comedy \d+ +\w+ \d+ 0\.\d\d, "),
    ],
)
def test_example_prints_a_falling_loss_and_neighbours(
    name: str, target: str, neighbour: str
) -> None:
    done = run(name, target, "--steps", "60")
    assert done.returncode == 0, done.stderr
    losses = [float(mean) for mean in re.findall(r"from step +\d+ +(\d+\.\d+)", done.stdout)]
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    assert re.search(neighbour, done.stdout)


def test_recommendation_beats_popularity() -> None:
    done = run("recommendation.py", "--steps", "250")
    similar, popular = map(float, re.findall(r"by \w+ +(\d+\.\d)%", done.stdout))
    assert similar > popular


def test_unknown_target_gets_one_line() -> None:
    done = run("recommendation.py", "no_such_thing")
    assert done.returncode == 2
    assert "no backend is called 'no_such_thing'" in done.stderr
    assert "Traceback" not in done.stderr
