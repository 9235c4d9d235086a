"""embconform gate on a user's repository: what it says of a change, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psutil
import pytest
from repository import BROKEN, PLAIN, SLOWER, TIDIED, WRONG, Repository

TARGET = "my_pkg:my_embedding"
SMALL = ("--workload", "movielens-items-batch-zipf-float32", "--passes", "forward")
"""A call of some 80 µs, bound by the caches: the quietest that there is."""
TOKEN = ("--workload", "gpt2-token-zipf-float32", "--passes", "forward")
FAST = ("--no-conformance",)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    top = tmp_path / "user"
    top.mkdir()
    return Repository(top)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def command(base: str, *arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "embconform", "gate", "--target", TARGET, "--base", base, *arguments,
    ]  # fmt: skip


def run(repository: Repository, cache: Path, base: str, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        command(base, *arguments),
        cwd=repository.top, env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def one_line(result: tuple[int, str, str], *said: str) -> None:
    code, out, err = result
    assert (code, out) == (2, ""), err
    assert err.startswith("embconform: ")
    assert err.count("\n") == 1
    for part in said:
        assert part in err


def left_in(cache: Path) -> list[Path]:
    """List what checkouts have left."""
    return [path for home in (cache / "embconform/gate").glob("*") for path in home.iterdir()]


@pytest.mark.slow
def test_a_slower_head_is_a_regression(repository: Repository, cache: Path, tmp_path: Path) -> None:
    base = repository.commit(PLAIN)
    repository.commit(SLOWER)
    code, out, err = run(repository, cache, base, *SMALL, *FAST, "--json", str(tmp_path / "a.json"))
    assert code == 1, out + err
    found = json.loads((tmp_path / "a.json").read_text())
    (row,) = found["benchmarks"]
    assert found["verdict"] == "regression"
    assert row["verdict"] == "slower"
    assert row["change"] > row["low"] > 0
    assert len(row["confirming_log_ratios"]) >= 5
    assert found["together"]
    assert "is slower by" in out
    assert repository.worktrees == 1
    assert left_in(cache) == []


@pytest.mark.slow
def test_a_harmless_head_is_fine(repository: Repository, cache: Path, tmp_path: Path) -> None:
    base = repository.commit(PLAIN)
    repository.commit(TIDIED)
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "markdown", "junit")}
    outputs = [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    selected = ("--select", "padding.*,lookup.rows")
    code, out, err = run(repository, cache, base, *SMALL, *selected, *outputs)
    assert code == 0, out + err
    found = json.loads(files["json"].read_text())
    (row,) = found["benchmarks"]
    assert found["verdict"] == "fine"
    assert row["planted_seen"]
    assert row["planted"] > 0.05
    assert row["memory"]["wrong"] == ""
    assert found["conformance"]["lost"] == {}
    assert found["conformance"]["passed"] >= 3
    assert "no slowdown larger than" in out
    assert "never calibrated on this machine" in out
    written = files["markdown"].read_text()
    assert written.startswith("### ✅ embconform gate: fine")
    assert "| movielens-items-batch-zipf-float32 forward |" in written
    suite = ET.parse(files["junit"]).getroot()[0]
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
    assert left_in(cache) == []


@pytest.mark.slow
def test_a_lost_clause_is_a_regression_whatever_the_speed(
    repository: Repository, cache: Path, tmp_path: Path
) -> None:
    base = repository.commit(PLAIN)
    repository.commit(WRONG)
    file = tmp_path / "a.xml"
    selected = ("--select", "padding.*", "--seconds", "1", "--junit", str(file), "--json", "-")
    code, out, err = run(repository, cache, base, *TOKEN, *selected)
    assert code == 1, out + err
    found = json.loads(out)
    assert "padding.zero-is-an-index" in found["conformance"]["lost"]
    assert all(row["verdict"] != "slower" for row in found["benchmarks"])
    failed = {case.get("name") for case in ET.parse(file).getroot()[0] if len(case)}
    assert "conformance.padding.zero-is-an-index" in failed


def test_calls_that_can_not_be_used(repository: Repository, cache: Path) -> None:
    base = repository.commit(PLAIN)
    one_line(run(repository, cache, "nothing"), "'nothing' names no commit of")
    one_line(run(repository, cache, "--upload-pack"), "'--upload-pack' names no commit of")
    repository.write(TIDIED)
    one_line(run(repository, cache, base), "not committed (my_pkg/__init__.py)", "--allow-dirty")
    assert repository.worktrees == 1
    assert left_in(cache) == []


def test_a_base_that_does_not_import(repository: Repository, cache: Path) -> None:
    base = repository.commit(BROKEN)
    repository.commit(PLAIN)
    one_line(
        run(repository, cache, base),
        "base can't be used", "importing my_pkg failed", "no_such_module", "head is fine",
    )  # fmt: skip
    assert left_in(cache) == []


def test_a_head_that_does_not_import(repository: Repository, cache: Path) -> None:
    base = repository.commit(PLAIN)
    repository.commit(BROKEN)
    result = run(repository, cache, base)
    one_line(result, "head can't be used", "no_such_module")
    assert "is fine" not in result[2]


@pytest.mark.slow
def test_a_base_without_the_package(repository: Repository, cache: Path) -> None:
    repository.git("commit", "-q", "--allow-empty", "-m", "nothing yet")
    repository.commit(PLAIN)
    one_line(
        run(repository, cache, "HEAD~1"),
        "base can't be used",
        "no module named 'my_pkg'",
        "head is fine",
    )


def test_outside_a_repository(tmp_path: Path, cache: Path) -> None:
    from embconform.performance.gate.revisions import RevisionError, find_head

    with pytest.raises(RevisionError, match="is in no git repository"):
        find_head(tmp_path, allow_dirty=False)


def started(repository: Repository, cache: Path, base: str) -> subprocess.Popen[bytes]:
    """Start a gate, and wait until it has checked base out and started workers."""
    gate = subprocess.Popen(
        command(base, *TOKEN, *FAST),
        cwd=repository.top, env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 120
    while not (left_in(cache) and workers(gate)) and time.monotonic() < until:
        time.sleep(0.05)
    assert repository.worktrees == 3, "the user's, base's and the copy of head"
    return gate


def workers(gate: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(gate.pid).children():
        with suppress(psutil.NoSuchProcess):  # a git that has ended meanwhile
            if "worker_process" in str(process.cmdline()):
                found.append(process)
    return found


def test_a_killed_gate_is_tidied_up_by_the_next(repository: Repository, cache: Path) -> None:
    from embconform.performance.gate.revisions import checked_out

    base = repository.commit(PLAIN)
    repository.commit(TIDIED)
    gate = started(repository, cache, base)
    theirs = workers(gate)
    gate.send_signal(signal.SIGKILL)
    gate.wait()
    _, alive = psutil.wait_procs(theirs, timeout=30)
    assert not alive
    assert left_in(cache)
    with checked_out(repository.top, base, cache / "embconform/gate") as tree:
        assert (tree.folder / "my_pkg/__init__.py").read_text() == PLAIN
        assert repository.worktrees == 2
    assert left_in(cache) == []
    assert repository.worktrees == 1


def test_an_interrupted_gate_leaves_nothing(repository: Repository, cache: Path) -> None:
    base = repository.commit(PLAIN)
    gate = started(repository, cache, base)
    theirs = workers(gate)
    gate.send_signal(signal.SIGTERM)
    assert gate.wait(60) == 130
    assert left_in(cache) == []
    assert repository.worktrees == 1
    assert not psutil.wait_procs(theirs, timeout=30)[1]


def test_gates_beside_each_other_leave_each_other_alone(
    repository: Repository, cache: Path
) -> None:
    from embconform.performance.gate.revisions import checked_out, prune

    base = repository.commit(PLAIN)
    with checked_out(repository.top, base, cache) as tree:
        assert prune(repository.top, tree.folder.parent) == 0
        assert (tree.folder / "my_pkg/__init__.py").exists()


def ready(top: Path, base: Path, target: str = TARGET) -> Any:
    """Load two trees that no git knows."""
    from embconform.performance.gate.benchmarks import choose
    from embconform.performance.gate.installed import Files
    from embconform.performance.gate.messages import Hello
    from embconform.performance.gate.setup import Place, get_ready

    hello = Hello(tuple(entry for entry in sys.path if entry), 1, 0)
    wanted = choose("movielens-items-batch-zipf-float32", ("forward",))
    return get_ready(target, Files(base), Files(top), Place(top), hello, wanted=wanted)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two trees that differ in a module that is imported late."""
    trees = tmp_path / "old", tmp_path / "new"
    for tree, value in zip(trees, ("1.0", "2.0"), strict=True):
        package = tree / "src" / "my_pkg"
        package.mkdir(parents=True)
        (package / "late.py").write_text(f"VALUE = {value}\n")
        (package / "__init__.py").write_text(
            "def my_embedding(input, weight):\n"
            "    from my_pkg.late import VALUE\n    return weight[input] * VALUE\n"
        )
    return trees


def test_imports_inside_functions_are_each_sides_own(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from embconform.performance.gate.messages import Side
    from embconform.performance.gate.seat import Seat

    monkeypatch.setattr(sys, "path", list(sys.path))
    sides = [
        Side(tree.name, TARGET, (str(tree),), (str(tree / "src"),), str(tree), str(tree))
        for tree in two
    ]
    seats = [Seat(side, tuple(sys.path)) for side in sides]
    for _ in range(2):
        for seat, value in zip(seats, (1.0, 2.0), strict=True):
            with seat.active():
                assert seat.backend.functional is not None
                seen = seat.backend.functional(torch.tensor([0]), torch.ones(1, 1))
                assert float(seen) == value
    assert "my_pkg" not in sys.modules


@pytest.mark.slow
def test_a_src_layout_and_a_head_that_computes_wrongly(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base returns the rows and head doubles them: broken in a timed call, and said so."""
    old, new = two
    monkeypatch.setenv("PYTHONPATH", str(new / "src"))
    monkeypatch.setattr(sys, "path", [str(new / "src"), *sys.path])
    found = ready(new, old)
    assert found.together, found.apart
    assert found.base.roots[0] == str(old / "src")
    assert found.benchmarks == ()
    assert (
        "elements are not their rows'" in found.broken["movielens-items-batch-zipf-float32 forward"]
    )


@pytest.mark.slow
def test_operators_of_one_name_need_processes_of_their_own(tmp_path: Path) -> None:
    code = (
        "import torch\n@torch.library.custom_op('gate_test::rows', mutates_args=())\n"
        "def rows(weight: torch.Tensor, index: torch.Tensor) -> torch.Tensor:\n"
        "    return weight[index]\n\n"
        "def my_embedding(input, weight):\n    return rows(weight, input)\n"
    )
    trees = tmp_path / "old", tmp_path / "new"
    for tree in trees:
        (tree / "my_pkg").mkdir(parents=True)
        (tree / "my_pkg" / "__init__.py").write_text(code)
    found = ready(trees[1], trees[0])
    assert not found.together
    assert "registers the operator gate_test::rows" in found.apart
    assert len(found.benchmarks) == 1


def test_a_target_of_elsewhere_is_refused(two: tuple[Path, Path]) -> None:
    from embconform.performance.gate.workers import SideError

    with pytest.raises(SideError, match="not from the files of head"):
        ready(two[1], two[0], "eager")
