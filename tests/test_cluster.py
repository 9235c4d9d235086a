"""--scheduler: shards on a dask.distributed cluster are the run of one process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from embconform.commands import main

CALL = ("planted.py:embed", "--budget", "quick", "--select", "lookup.[!h]*,padding.*")
PLANTED = """
from torch.nn.functional import embedding

def embed(input, weight, padding_idx=None):
    return embedding(input, weight, padding_idx or None)
"""


def dask(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def worker(folder: Path, address: str) -> subprocess.Popen[str]:
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
    return dask(folder, "dask_worker", address, *options)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted.py").write_text(PLANTED)
    return tmp_path


@pytest.fixture
def cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """A scheduler and two workers on loopback."""
    scheduler = dask(folder, "dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                     "--no-dashboard")  # fmt: skip
    processes = [scheduler]
    try:
        assert scheduler.stderr is not None
        address = None
        while address is None:
            address = re.search(r"tcp://127\.0\.0\.1:\d+", scheduler.stderr.readline())
        processes += [worker(folder, address[0]) for _ in range(2)]
        _wait_for_workers(address[0], 2)
        yield address[0], processes[1:]
    finally:
        for process in reversed(processes):
            process.kill()
            process.communicate()


def _wait_for_workers(address: str, number: int) -> None:
    code = f"from distributed import Client; Client({address!r}).wait_for_workers({number}, 60)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100, capture_output=True)


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key != "seconds"}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "embconform", "validate", *CALL, *arguments]


def test_a_worker_that_dies_has_its_shard_run_again(
    folder: Path, cluster: tuple[str, list[subprocess.Popen[str]]]
) -> None:
    address, workers = cluster
    spread = subprocess.Popen(
        command("--scheduler", address, "--json", "spread.json"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    victim = psutil.Process(workers[0].pid)
    while not victim.children(recursive=True):
        assert spread.poll() is None
        time.sleep(0.05)
    time.sleep(3)
    children = victim.children(recursive=True)
    assert children
    victim.kill()
    _, said = spread.communicate(timeout=500)
    assert spread.returncode == 1, said
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    subprocess.run(command("--json", "alone.json"), capture_output=True, check=False)
    found = [timeless(json.loads(Path(name).read_text())) for name in ("spread.json", "alone.json")]
    assert found[0] == found[1]


def test_what_a_worker_refuses_is_refused(
    folder: Path,
    cluster: tuple[str, list[subprocess.Popen[str]]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    call = ["validate", "nowhere.py:embed", "--scheduler", cluster[0], "--json", "x.json"]
    assert main.run(call) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "on the cluster: " in err
    assert "nowhere.py" in err
    assert not (folder / "x.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scheduler", "nonsense://x"), "is not tcp://HOST:PORT"),
        (("--scheduler", "tcp://x:1", "--shard", "1/2"), "--scheduler makes the shards itself"),
        (("--scheduler", "tcp://x:1", "--for", "9s"), "--scheduler makes the shards itself"),
    ],
)
def test_refusals(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
    assert main.run(["validate", "eager", *arguments]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
