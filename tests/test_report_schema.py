"""The schema that readers of JSON reports are given says what reports hold, and no less."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from torch import Tensor

from embconform.backends.adapt import as_backend
from embconform.conformance.options import RunOptions
from embconform.conformance.render.json import as_dict
from embconform.conformance.running.engine import run
from embconform.reference.clause import Profile

SCHEMA = json.loads(
    (files("embconform.conformance.render") / "report.schema.json").read_text("utf-8")
)
SELECT = "lookup.shape,errors.negative,sparse.layout,gradient.float32-accumulation"


def wraps(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
    return weight[input]


@pytest.fixture(scope="module")
def report() -> Any:
    """A real report with passes, failures and something unsupported."""
    options = RunOptions(Profile.TORCH, budget="quick", select=SELECT)
    made = as_dict(run(as_backend("wraps", wraps), options, target="wraps"))
    assert {row["status"] for row in made["clauses"]} >= {"pass", "fail", "unsupported"}
    return json.loads(json.dumps(made, allow_nan=False))


def errors(document: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(document)]


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_a_report_keeps_it(report: Any) -> None:
    assert errors(report) == []
    assert errors([report, report]) == []


@pytest.mark.parametrize("path", [(), ("clauses", 0), ("clauses", 0, "failure")])
def test_a_key_more_or_less_is_noticed(report: Any, path: tuple[Any, ...]) -> None:
    report["clauses"].sort(key=lambda row: row["failure"] is None)
    more, less = copy.deepcopy(report), copy.deepcopy(report)
    for changed in (more, less):
        part = changed
        for step in path:
            part = part[step]
        if changed is more:
            part["new"] = 1
        else:
            del part[min(part)]
        assert errors(changed)
