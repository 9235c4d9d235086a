"""How many processes a run takes by default, and that none is left."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import click
import psutil
import pytest
from click.testing import CliRunner

from embconform.commands.main import run
from embconform.commands.request import MOST_WORKERS, ROOM, Request
from embconform.commands.validate import validate
from embconform.conformance.running.crew import preparing


@dataclass(frozen=True)
class Memory:
    available: int


def asked(**changes: Any) -> Request:
    options: dict[str, Any] = {
        "profile": None,
        "budget": "quick",
        "max_examples": None,
        "seed": 0,
        "device": "cpu",
        "select": "*",
        "deviations": None,
        "strict": False,
        "fail_fast": False,
        "isolation": "process",
        "case_timeout": None,
        "timeout": None,
        "memory": None,
    }
    return Request(**options | changes)


@pytest.mark.parametrize(
    ("cores", "memory", "changes", "helpers"),
    [
        (2, 100, {}, 1),
        (64, 100, {}, MOST_WORKERS - 1),
        (1, 100, {}, 0),
        (4, 2, {}, 1),
        (4, 0, {}, 0),
        (4, 100, {"isolation": "none"}, 0),
        (4, 100, {"device": "cuda"}, 0),
        (4, 100, {"fail_fast": True}, 0),
        (1, 0, {"workers": 3}, 2),
    ],
)
def test_there_is_one_a_core_while_there_is_room(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, changes: Any, helpers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(memory * ROOM))
    assert asked(**changes).helpers == helpers


def test_under_torchrun_one_process_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(100 * ROOM))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert asked().helpers == 0
    asked(workers=1).check(1)
    with pytest.raises(click.UsageError, match="leave --workers and EMBCONFORM_WORKERS out"):
        asked(workers=2).check(1)


def helpers_alive() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE
        and any("helper_process" in word for word in child.cmdline())
    ]


def test_helpers_that_nobody_takes_are_sent_home() -> None:
    with preparing(2):
        assert len(helpers_alive()) == 2
    assert helpers_alive() == []


def test_a_target_that_cannot_be_found_leaves_no_helper(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(["validate", "nothing_of_this_name", "--workers", "2"]) == 2
    assert "no backend is called" in capfd.readouterr().err
    assert helpers_alive() == []


def test_the_environment_names_the_number() -> None:
    said = CliRunner().invoke(validate, ["eager"], env={"EMBCONFORM_WORKERS": "zero"})
    assert said.exit_code == 2
    assert "--workers" in said.output


@pytest.mark.parametrize("command", ["validate", "matrix"])
def test_several_targets_share_the_helpers_of_one_run(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    targets = ("eager", "index-select", "one-hot")
    chosen = ("--select", "lookup.dtype", "--max-examples", "1", "--workers", "2")
    assert run([command, *targets, *chosen]) == 0, capfd.readouterr().err
