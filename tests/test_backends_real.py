"""Each built-in backend is called for real: a few cases in every run, a budget in the slow one."""

from __future__ import annotations

import pytest

from embconform.backends.catalogue import catalogue, reason_not_to_run
from embconform.backends.deviations import active, load
from embconform.conformance.isolation.isolated import Isolated
from embconform.conformance.options import RunOptions
from embconform.conformance.report import BROKEN, Report, Status
from embconform.conformance.running.engine import run

QUICK = (
    *("module", "index-select", "advanced-indexing", "one-hot", "func", "vmap", "trace", "script"),
    *("jax", "numba"),
)
"""Those that are judged in seconds; the others are slow to import or compile each size."""
IN_SECONDS = "lookup.[!h]*,padding.*,gradient.*,max-norm.*,errors.*"
"""Clauses without a probe: what these do takes longer than all the cases."""


def report_of(name: str, **given: object) -> Report:
    """Judge a backend with the deviations that it declares."""
    if reason := reason_not_to_run(catalogue()[name].path):
        pytest.skip(reason)
    with Isolated(name) as target:
        described = target.description
        rows = load(described.deviations) if described.deviations else ()
        options = RunOptions(
            described.profiles[0],
            budget="quick",
            deviations=active(rows),
            **given,  # type: ignore[arg-type]
        )
        return run(target, options, target=name)


@pytest.mark.parametrize("name", QUICK)
def test_the_plainest_cases_conform(name: str) -> None:
    report = report_of(name, select=IN_SECONDS, max_examples=16)
    assert report.with_status(*BROKEN) == []
    assert len(report.with_status(Status.PASS)) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in catalogue() if name not in QUICK])
def test_the_slow_ones_conform_too(name: str) -> None:
    report = report_of(name, select=IN_SECONDS, max_examples=24)
    assert report.with_status(*BROKEN) == []
    assert len(report.with_status(Status.PASS)) >= 5


def test_a_backend_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    from embconform.backends import foreign

    monkeypatch.setattr(foreign, "find_spec", lambda name: None)
    reasons = {
        name: reason_not_to_run(catalogue()[name].path)
        for name in ("jax", "flax", "keras-jax", "onnxruntime", "numba")
    }
    assert reasons == {
        "jax": "jax is not installed; pip install 'embconform[jax]'",
        "flax": "flax and jax are not installed; pip install 'embconform[flax]'",
        "keras-jax": "keras and jax are not installed; pip install 'embconform[keras,jax]'",
        "onnxruntime": "onnxruntime, onnx and onnxscript are not installed; "
        "pip install 'embconform[onnxruntime]'",
        "numba": "numba is not installed; pip install 'embconform[numba]'",
    }
