"""The suite on a CUDA device: what it says of right targets, and that it catches wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sampling import bug_name

from embconform.conformance.api import NonconformantError, check_backend
from embconform.conformance.isolation.isolated import Isolated
from embconform.conformance.report import ClauseResult, Report, Status
from embconform.mutants.registry import Planted, all_planted

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a CUDA device: on this machine the suite is untested on CUDA",
)

PLANTED = all_planted("cuda")


def report_of(target: Any, select: str, **options: Any) -> Report:
    try:
        return check_backend(target, select=select, **options)
    except NonconformantError as error:
        return error.report


def results(report: Report) -> dict[str, ClauseResult]:
    return {result.clause.id: result for result in report.clauses}


@pytest.mark.parametrize(
    "select",
    ["lookup.*", "gradient.*,sparse.*", "padding.*", "state.*", "module.*", "training.*"],
)
def test_aten_keeps_the_clauses_without_a_fault(select: str) -> None:
    report = report_of("cuda", select)
    assert report.device == "cuda"
    assert "gpu" in report.environment
    exercised = [result for result in report.clauses if result.exercised]
    assert len(exercised) > len(report.clauses) / 2
    crashed = {result.clause.id for result in report.with_status(Status.CRASH)}
    assert crashed == set()
    assert report.tampered == ()


def test_a_device_side_assert_costs_a_process_and_no_crash() -> None:
    found = results(report_of("cuda", "errors.too-large,errors.next-call-works,lookup.rows"))
    assert found["errors.too-large"].status is Status.PASS
    assert found["errors.next-call-works"].status in (Status.FAIL, Status.DEVIATION)
    assert found["lookup.rows"].status is Status.PASS


def test_the_device_is_read_and_not_the_cpu() -> None:
    with Isolated("cuda") as target:
        assert target.device == "cuda"
        assert target.environment["gpu"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("target", ["cuda", "cuda-graph"])
def test_streams(target: str) -> None:
    found = results(report_of(target, "streams.*"))
    assert found["streams.current"].status is Status.PASS
    assert found["streams.concurrent"].status is Status.PASS
    graph = Status.PASS if target == "cuda" else Status.UNSUPPORTED
    assert found["streams.capture"].status is graph


@pytest.mark.parametrize("bug", PLANTED, ids=bug_name)
def test_a_planted_bug_is_caught(bug: Planted) -> None:
    report = report_of(bug.where, bug.clause, device="cuda")
    (result,) = report.clauses
    assert result.status is Status.FAIL, result.detail


def test_replayed_graphs_see_new_data() -> None:
    from embconform.backends.cuda_graph import embedding

    weight = torch.randn(100, 8, device="cuda", requires_grad=True)
    kept = []
    for step in range(3):
        ids = torch.arange(step, step + 20, device="cuda")
        out = embedding(ids, weight, padding_idx=3)
        (gradient,) = torch.autograd.grad(out, weight, torch.full_like(out, step + 1.0))
        kept.append((ids, out, gradient))
        with torch.no_grad():
            weight += 1
    shift = 2.0
    for step, (ids, out, gradient) in enumerate(kept):
        torch.testing.assert_close(out + (shift - step + 1), weight.detach()[ids])
        wanted = torch.zeros_like(weight)
        wanted[ids] = step + 1.0
        wanted[3] = 0
        assert torch.equal(gradient, wanted)
