"""asv runs from a fresh clone, sees a planted slowdown, and takes results from elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asv", reason="asv is in the extra 'bench'")

ROOT = Path(__file__).parents[1]
ASV = (sys.executable, "-m", "asv")
WHO = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")
SLOWED = "functional=lambda *a, **k: torch.nn.functional.embedding(*a, **k).clone(),"


@pytest.fixture
def call(tmp_path: Path) -> Any:
    """Run a command in a fresh clone, with a home of its own; asv writes into it."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    environment = os.environ | {
        "HOME": str(tmp_path),
        "EMBCONFORM_BENCHMARKS": "quick",
        "OMP_NUM_THREADS": "1",
        **{
            f"GIT_{who}_{what}": "a@b.c"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }

    def run(*command: str, code: int = 0) -> str:
        done = subprocess.run(
            command, cwd=clone, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=1_800, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    run(*ASV, "machine", "--yes")
    return run


@pytest.fixture
def gpu(tmp_path: Path) -> Path:
    """What embconform bench --json writes, as from a machine with a GPU."""
    result = {
        "target": "eager", "workload": "movielens-users-batch-uniform-float32",
        "pass": "forward", "device": "cuda", "cache": "warm", "status": "ok",
        "time": {"value": 1.25e-5}, "share_of_ceiling": 0.81,
        "memory": {"peak_bytes": 4096, "allocated_bytes": 2048.0},
        "compiled": {"first_call_seconds": 0.1, "recompilations": 0},
    }  # fmt: skip
    wrong = result | {"pass": "backward", "status": "wrong", "time": {"value": 1e-9}}
    environment = {
        "cpu": "a processor", "cores": "16", "system": "Linux 6.1 x86_64",
        "memory": "1 GiB, 1 free", "python": "3.11.7", "torch": "2.13.0",
        "gpu": "NVIDIA H100", "driver": "580.1", "cuda": "13",
    }  # fmt: skip
    file = tmp_path / "gpu.json"
    file.write_text(
        json.dumps({"schema": 1, "results": [result, wrong], "environment": environment})
    )
    return file


def just_discover(call: Any) -> None:
    """Let asv find the benchmarks in the Python at hand."""
    call(*ASV, "run", "--bench", "just-discover", "--python", "same")


def test_results_from_elsewhere_stand_on_the_site(call: Any, gpu: Path, tmp_path: Path) -> None:
    just_discover(call)
    said = call(sys.executable, "-m", "benchmarks.bring", str(gpu), "--machine", "gpu-box")
    assert "4 numbers" in said
    clone = tmp_path / "clone"
    machine = json.loads((clone / ".asv/results/gpu-box/machine.json").read_text())
    assert machine["gpu"] == "NVIDIA H100"
    assert machine["driver"] == "580.1"
    call(*ASV, "publish", "HEAD^!")
    index = json.loads((clone / ".asv/html/index.json").read_text())
    assert index["params"]["gpu"] == ["NVIDIA H100"]
    assert index["params"]["machine"] == ["gpu-box"]
    graphs = list((clone / ".asv/html/graphs").rglob("branch-*/**/speed.Speed.track_seconds.json"))
    (points,) = [json.loads(path.read_text()) for path in graphs]
    ((_, values),) = points
    # the wrong target's 1e-9 stands nowhere
    assert [value for value in values if value is not None] == [1.25e-5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "can't read"),
        ("[]", "is no file of embconform bench --json"),
        ('{"schema": 2, "results": []}', "is no file of embconform bench --json, schema 1"),
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bring", str(file), "--machine", "m"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_devices_that_are_not_there_are_skipped_by_name() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.common import look_up
    finally:
        sys.path.remove(str(ROOT))
    fine = {"status": "ok"}
    key = ("eager", "w", "forward", "cpu")
    assert look_up({"cpu": "", key: fine}, key) is fine
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        look_up({"cuda": "no CUDA device"}, (*key[:3], "cuda"))
    with pytest.raises(NotImplementedError, match="eager can't run here"):
        look_up({"cpu": ""}, key)
    with pytest.raises(NotImplementedError, match="has no sparse"):
        look_up({"cpu": "", key: {"status": "unsupported", "detail": "has no sparse"}}, key)


@pytest.mark.slow
def test_a_slowdown_between_two_commits_is_a_regression(call: Any, tmp_path: Path) -> None:
    file = tmp_path / "clone/backends/eager.py"
    text = file.read_text()
    file.write_text(text.replace("functional=torch.nn.functional.embedding,", SLOWED))
    assert file.read_text() != text
    call("git", "commit", "-qam", "Copy each output once more")
    said = call(
        *ASV, "continuous", "HEAD~1", "HEAD", "--factor", "1.5", "--bench", "Memory", code=1
    )
    line = next(line for line in said.splitlines() if "track_allocated" in line and "eager" in line)
    assert float(line.split("|")[4]) == pytest.approx(2, abs=0.05)
    assert "PERFORMANCE DECREASED" in said
    compared = call(*ASV, "compare", "HEAD~1", "HEAD", "--factor", "1.5", "--split")
    assert "track_allocated" in compared
    call(*ASV, "publish", "HEAD~2..HEAD")
    index = json.loads((tmp_path / "clone/.asv/html/index.json").read_text())
    assert len(index["revision_to_hash"]) >= 2


@pytest.mark.slow
def test_pytest_benchmark_runs_the_same_workloads(tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", "-q", f"--benchmark-json={saved}"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"EMBCONFORM_BENCHMARKS": "quick"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(saved.read_text())["benchmarks"]
    assert {entry["group"] for entry in found} == {
        "movielens-users-batch-uniform-float32 forward",
        "movielens-users-batch-uniform-float32 backward",
    }
