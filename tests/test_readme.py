"""What README tells people to type works, and prints what README shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import OURS
from repository import copy_repository

pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FIRST_SCREEN = README.partition("\n## ")[0]


def fenced(text: str, language: str | None = None) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for tag, code in blocks if language in (None, tag)]


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def without_numbers(text: str) -> list[str]:
    """Leave out how many cases there were and how long they took."""
    text = re.sub(r"[\d,]+ of [\d,]+ cases", "N of N cases", text)
    return re.sub(r"[\d,]+ cases in [\d.]+ s", "N cases in T s", text).splitlines()


@pytest.mark.parametrize("which", ["main", "test"])
def test_the_first_screen_has_two_commands(which: str) -> None:
    assert len(FIRST_SCREEN.splitlines()) <= 26
    assert len(fenced(FIRST_SCREEN)) == 2
    (marked,) = re.findall(rf"<!-- {which} command -->\n(.*?)<!-- end -->", README, re.DOTALL)
    (command,) = fenced(marked, "bash")
    assert marked == f"```bash\n{command}```\n"
    assert command.count("\n") == 1
    assert "-c constraints.txt" in command
    assert command.startswith("python3 -m venv ")
    assert command.rstrip().endswith(
        {"main": "embconform validate eager", "test": "pytest -n 2"}[which]
    )


def test_every_block_is_run_by_a_test_of_this_file() -> None:
    own = section("Your own embedding")
    run = [*fenced(FIRST_SCREEN), *fenced(own), *fenced(section("In your tests"))]
    assert (len(fenced(FIRST_SCREEN)), len(fenced(own)), len(fenced(README))) == (2, 2, len(run))


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (pytester.path / "my_package.py").write_text(OURS)
    return pytester.path


@pytest.mark.slow  # installs everything anew; .ci/run does the same with the test command
def test_the_main_command(tmp_path: Path) -> None:
    (command,) = fenced(README.partition("<!-- main command -->")[2].partition("<!-- end -->")[0])
    copy_repository(tmp_path)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("eager  conformant")


@pytest.mark.slow  # two whole runs
def test_your_own_embedding(folder: Path) -> None:
    (commands,) = fenced(section("Your own embedding"), "bash")
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "file.py").write_text("from torch.nn import Embedding as MyEmbedding")
    first, second = commands.splitlines()
    assert whole_run(first, folder) == 0
    assert whole_run(second, folder) == 1  # it inherits what torch does not keep


def whole_run(command: str, folder: Path) -> int:
    words = shlex.split(command, comments=True)
    assert words[0] == "embconform"
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, check=False
    ).returncode


def test_in_your_tests(pytester: pytest.Pytester, folder: Path) -> None:
    (code,) = fenced(section("In your tests"), "python")
    pytester.makepyfile(test_mine=code)
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\nfilterwarnings = error\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] > 40


def test_with_no_test_file(pytester: pytest.Pytester, folder: Path) -> None:
    (command,) = fenced(section("In your tests"), "bash")
    first, *arguments = shlex.split(command)
    assert first == "pytest"
    result = pytester.runpytest_subprocess(*arguments, "--embedding-select=lookup.*")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] > 10


def test_the_sample_of_the_output(tmp_path: Path) -> None:
    (sample,) = fenced(section("Your own embedding"), "")
    blocks = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", sample, re.MULTILINE)
    (show, code), (command, shown) = blocks
    assert show == "cat mine.py"
    (tmp_path / "mine.py").write_text(code)
    name, *arguments = shlex.split(command)
    assert name == "embconform"
    result = subprocess.run(
        [sys.executable, "-m", "embconform", *arguments],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (1, "")
    assert without_numbers(result.stdout) == without_numbers(shown), result.stdout
