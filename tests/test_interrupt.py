"""An interrupt is heeded at once also while a run's work is laid out, which may take seconds."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embconform.commands import main
from embconform.conformance.running import explorer
from embconform.conformance.running.interrupt import Interruptible, finished

TARGET = """
def embed(input, weight):
    return weight[input]
"""
CALL = ("validate", "mine.py:embed", "--isolation", "none", "--budget", "quick", "--database",
        "none", "--max-examples", "30", "--select", "lookup.*")  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(TARGET)
    return tmp_path


def _interrupting(*arguments: object, **options: object) -> Any:
    """Stand in for the layout: send an interrupt, and then go on for ever."""
    del arguments, options
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        pass


def document(name: str) -> Any:
    return json.loads(Path(name).read_text())


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key != "seconds"}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def test_the_report_says_so_and_the_run_can_go_on(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = main.run([*CALL, "--json", "whole.json"])
    with monkeypatch.context() as patch:
        patch.setattr(explorer, "strata", _interrupting)
        assert main.run([*CALL, "--json", "cut.json"]) == 130
    assert "interrupted" in capfd.readouterr().out
    cut = document("cut.json")
    assert (cut["interrupted"], cut["verdict"], cut["cases"]) == (True, "nonconformant", 0)
    assert {clause["status"] for clause in cut["clauses"]} <= {"untested", "unsupported"}
    assert main.run([*CALL, "--resume", "cut.json", "--json", "again.json"]) == whole
    assert timeless(document("again.json")) == timeless(document("whole.json"))


@pytest.mark.parametrize("cut", [1, 2])
def test_a_shard_of_nothing_is_merged_and_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    whole = main.run([*CALL, "--json", "whole.json"])
    with monkeypatch.context() as patch:
        patch.setattr(explorer, "strata", _interrupting)
        assert main.run([*CALL, "--shard", f"{cut}/2", "--json", "a.json"]) == 130
    assert main.run([*CALL, "--shard", f"{3 - cut}/2", "--json", "b.json"]) in (0, 1)
    assert main.run(["merge", "a.json", "b.json", "--json", "both.json"]) == 1
    assert document("both.json")["interrupted"]
    assert document("both.json")["cases"] == document("b.json")["cases"]
    assert main.run([*CALL, "--resume", "both.json", "--json", "again.json"]) == whole
    assert timeless(document("again.json")) == timeless(document("whole.json"))


def test_what_a_resumed_run_had_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = main.run([*CALL, "--json", "whole.json"])
    assert main.run([*CALL, "--timeout", "0.001", "--json", "cut.json"]) == 1
    done = document("cut.json")
    assert 0 < done["cases"] < document("whole.json")["cases"]
    real: Callable[..., Any] = explorer.strata

    def once(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(explorer, "strata", once)
        assert main.run([*CALL, "--resume", "cut.json", "--json", "again.json"]) == 130
    assert document("again.json")["cases"] == done["cases"]
    assert main.run([*CALL, "--resume", "again.json", "--json", "last.json"]) == whole
    assert timeless(document("last.json")) == timeless(document("whole.json"))


def test_rounds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = explorer.strata, 0

    def after_a_round(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return _interrupting() if calls > 2 else real(*arguments, **options)

    monkeypatch.setattr(explorer, "strata", after_a_round)
    assert main.run([*CALL, "--for", "10m", "--json", "cut.json"]) == 130
    assert document("cut.json")["interrupted"]
    assert document("cut.json")["cases"] > 0


def test_without_a_signal_work_is_finished() -> None:
    done: list[int] = []
    assert finished(lambda: done.append(1), lambda: True)
    with Interruptible() as stop:
        assert finished(lambda: done.append(2), stop)
        stop.requested = True
        assert not finished(lambda: done.append(3), stop)
    assert done == [1, 2]


def test_an_interrupt_that_nobody_noted_is_one_as_ever() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with Interruptible() as stop, pytest.raises(KeyboardInterrupt):
        finished(interrupt, stop)
