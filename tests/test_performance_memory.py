"""What torch's profiler says of itself is no failure of what is measured."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from embconform.performance.memory import measure_memory
from embconform.performance.passes import Work

INDICES = [torch.arange(500)]
PLAIN = torch.profiler.profile
SAID = "Warning: Profiler clears events at the end of each cycle.Only events from"


class Warning211(PLAIN):
    """A profiler that warns at each start, as that of torch 2.11 does."""

    def start(self) -> None:
        warnings.warn(SAID, UserWarning, stacklevel=2)
        super().start()


def work(run: Any) -> Work:
    return Work(run, None, torch.zeros(1))


def test_the_profilers_warning_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler, "profile", Warning211)
    found = measure_memory(work(lambda ids: ids.clone()), INDICES, "cpu")
    assert found.allocated_bytes == 4_000
    assert found.allocations == 1
    assert found.kept_bytes == 0


def test_a_targets_own_warning_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler, "profile", Warning211)

    def run(_: Any) -> None:
        warnings.warn(SAID, UserWarning, stacklevel=2)

    with pytest.raises(UserWarning, match="clears events"):
        measure_memory(work(run), INDICES, "cpu")


def test_the_profiler_is_stopped_where_a_target_raises() -> None:
    failing = iter([False] * 2 + [True])  # the first calls are of the resident set's peak

    def run(_: Any) -> None:
        if next(failing, True):
            raise RuntimeError("no such luck")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no such luck"):
            measure_memory(work(run), INDICES, "cpu")
    assert measure_memory(work(lambda ids: ids.clone()), INDICES, "cpu").allocations == 1
