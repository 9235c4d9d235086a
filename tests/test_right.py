"""Right embeddings, written differently from each other, are accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from embconform.backends.adapt import as_backend
from embconform.backends.textbook import BACKEND as TEXTBOOK
from embconform.conformance.engine import run
from embconform.conformance.options import RunOptions
from embconform.conformance.report import Report, Status
from embconform.mutants.kernel import Kernel
from embconform.right import RIGHT

TARGETS: list[Any] = [Kernel(), *RIGHT, TEXTBOOK]
NAMES = ["kernel", *(target.__name__ for target in RIGHT), "textbook"]


def validated(name: str, target: Callable[..., Any], seed: int) -> Report:
    backend = as_backend(name, target)
    options = RunOptions(backend.profiles[0], budget="quick", seed=seed)
    return run(backend, options, target=name)


def accept(report: Report) -> None:
    wrong = [
        (result.clause.id, result.detail)
        for result in report.clauses
        if report.counts_against(result)
        or (result.status is Status.UNTESTED and not result.left_out)
    ]
    assert wrong == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("name", "target"), list(zip(NAMES, TARGETS, strict=True)), ids=NAMES)
def test_right_embedding_is_accepted(name: str, target: Callable[..., Any], seed: int) -> None:
    accept(validated(name, target, seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 22))
@pytest.mark.parametrize(("name", "target"), list(zip(NAMES, TARGETS, strict=True)), ids=NAMES)
def test_right_embedding_is_accepted_over_many_seeds(
    name: str, target: Callable[..., Any], seed: int
) -> None:
    accept(validated(name, target, seed))
