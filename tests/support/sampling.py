"""Which of many alike a test run takes, and which only the slow tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def sampled(values: Iterable[Any], step: int, name: Callable[[Any], str]) -> list[Any]:
    """Make parameters of values, all but each `step`-th of them slow."""
    return [
        pytest.param(value, id=name(value), marks=[pytest.mark.slow] * (k % step > 0))
        for k, value in enumerate(values)
    ]


def bug_name(bug: Any) -> str:
    """Name a planted bug by its clause and its own name."""
    return f"{bug.clause}-{bug.name}"
