"""Which device a target runs on where nobody says, and what is said where it isn't here."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cli_support
import pytest
import torch
from cli_support import one_line
from torch.nn.functional import embedding

from embconform.backends.backend import Backend, Capabilities, TargetError
from embconform.backends.catalogue import catalogue, reason_not_to_run
from embconform.backends.devices import check_device
from embconform.backends.targets import resolve
from embconform.commands.bench import _device
from embconform.conformance.api import check_backend

cli, folder, runs = cli_support.cli, cli_support.folder, cli_support.runs
NAMES = ("cuda", "cuda-compile", "cuda-graph")
FINDS_NONE = "finds no CUDA device here"
without = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")

FILE = """
from torch.nn.functional import embedding
from embconform.backends.backend import Backend, Capabilities
only_cuda = Backend("c", functional=embedding, capabilities=Capabilities(devices=("cuda",)))
only_cpu = Backend("p", functional=embedding, capabilities=Capabilities(devices=("cpu",)))
cuda_first = Backend("f", functional=embedding, capabilities=Capabilities(devices=("cuda", "cpu")))
nowhere = Backend("n", functional=embedding, capabilities=Capabilities(devices=()))
"""


@pytest.fixture
def mine(folder: Path) -> Path:
    (folder / "mine.py").write_text(FILE)
    return folder


@pytest.mark.parametrize(
    ("devices", "own"),
    [(("cpu", "cuda"), "cpu"), (("cuda", "cpu"), "cpu"), (("cuda",), "cuda"), (("cpu",), "cpu")],
)
def test_a_targets_own_device(devices: tuple[str, ...], own: str) -> None:
    assert Capabilities(devices=devices).own_device == own


@pytest.mark.parametrize("name", NAMES)
def test_the_backends_for_cuda_are_listed(name: str) -> None:
    home, _, attribute = catalogue()[name].path.partition(":")
    module = pytest.importorskip(home)
    backend = getattr(module, attribute)
    assert backend.name == name
    assert backend.capabilities.own_device == "cuda"
    reason = reason_not_to_run(catalogue()[name].path)
    if not torch.cuda.is_available():
        assert reason == f"it needs a CUDA device, and torch {torch.__version__} finds none"


@without
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("more", [(), ("--isolation", "none"), ("--device", "cuda")])
def test_validate_without_a_device(cli: Any, folder: Path, name: str, more: Any) -> None:
    one_line(cli("validate", name, *more, "--json", "x.json"), "needs a CUDA device")
    assert not (folder / "x.json").exists()


@without
def test_bench_without_a_device(cli: Any, folder: Path) -> None:
    one_line(cli("bench", "cuda"), "needs a CUDA device")


@without
@pytest.mark.parametrize("isolation", ["process", "none"])
def test_a_users_target_for_cuda_alone(cli: Any, mine: Path, isolation: str) -> None:
    call = ("validate", "mine.py:only_cuda", "--isolation", isolation)
    one_line(cli(*call), f"mine.py:only_cuda can't run on cuda: torch {torch.__version__}")


@without
def test_check_backend_without_a_device() -> None:
    cuda_only = Capabilities(devices=("cuda",))
    with pytest.raises(TargetError, match=FINDS_NONE):
        check_backend(Backend("mine", functional=embedding, capabilities=cuda_only))
    with pytest.raises(TargetError, match="needs a CUDA device"):
        check_backend("cuda")


@without
def test_pytest_without_a_device(pytester: pytest.Pytester) -> None:
    call = ("--pyargs", "embconform.conformance", "--embedding-backend", "cuda")
    result = pytester.runpytest_subprocess(*call)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: cuda can't run here: it needs a CUDA device*"])


@pytest.mark.parametrize("target", ["good.py:embed", "mine.py:cuda_first", "mine.py:only_cpu"])
@pytest.mark.parametrize("isolation", ["process", "none"])
def test_what_serves_the_cpu_runs_there(
    cli: Any, mine: Path, runs: Any, target: str, isolation: str
) -> None:
    code, _, _ = cli("validate", target, "--isolation", isolation, "--json", "out.json")
    assert code == 0
    assert json.loads(Path("out.json").read_text())["device"] == "cpu"
    assert [options.device for _, options in runs.seen] == ["cpu"]
    assert "--device" not in json.loads(Path("out.json").read_text())["replay"]


def test_a_device_that_was_asked_for_is_in_the_replay(cli: Any, mine: Path, runs: Any) -> None:
    cli("validate", "good.py:embed", "--device", "cpu", "--json", "out.json")
    assert "--device cpu" in json.loads(Path("out.json").read_text())["replay"]


def test_a_target_without_any_device(cli: Any, mine: Path) -> None:
    one_line(cli("validate", "mine.py:nowhere"), "capabilities name no device")


def test_bench_runs_where_all_targets_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    both, cpu, cuda = (
        Backend("made", functional=embedding, capabilities=Capabilities(devices=devices))
        for devices in (("cpu", "cuda"), ("cpu",), ("cuda",))
    )
    assert _device({"both": both}, None) == "cpu"
    assert _device({"both": both, "cuda": cuda}, None) == "cuda"
    assert _device({"both": both}, "cuda") == "cuda"
    said = "no device serves all targets: cpu on cpu; cuda on cuda"
    with pytest.raises(TargetError, match=said):
        _device({"cpu": cpu, "cuda": cuda}, None)
    with pytest.raises(TargetError, match="cpu runs on cpu, not on cuda"):
        _device({"cpu": cpu}, "cuda")


def test_a_device_is_checked_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_device("eager", resolve("eager").capabilities, "cuda")
    with pytest.raises(TargetError, match="jax runs on cpu, not on cuda"):
        check_device("jax", Capabilities(devices=("cpu",)), "cuda")


@pytest.mark.parametrize(("size", "kept"), [(1, 5), (10, 5), (20, 2), (1000, 2)])
def test_many_graphs_are_kept_where_they_are_small(
    monkeypatch: pytest.MonkeyPatch, size: int, kept: int
) -> None:
    from embconform.backends import cuda_graph

    graphs = OrderedDict(((number,), SimpleNamespace(size=size)) for number in range(6))
    monkeypatch.setattr(cuda_graph, "_graphs", graphs)
    for name, value in {"ALWAYS": 2, "MOST": 5, "ROOM": 50}.items():
        monkeypatch.setattr(cuda_graph, name, value)
    cuda_graph._forget_oldest()
    assert [key for (key,) in graphs] == list(range(6))[-kept:]
