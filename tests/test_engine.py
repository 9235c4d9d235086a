"""The engine: the same report for a seed, statuses kept apart, no target that ends a run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import embedding

from embconform.backends.adapt import as_backend
from embconform.backends.backend import Backend, Capabilities
from embconform.backends.deviations import Deviation
from embconform.backends.eager import BACKEND as EAGER
from embconform.conformance.report import ClauseResult, Report, Status
from embconform.conformance.running.engine import RunOptions, run
from embconform.mutants.kernel import Kernel
from embconform.reference.clause import Profile, registry

KERNEL = as_backend("kernel", Kernel())
TORCH = Profile.TORCH


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def judged(target: Any, select: str = "*", **options: Any) -> Report:
    backend = target if isinstance(target, Backend) else as_backend("target", target)
    given = {"budget": "quick", **options}
    profile = given.pop("profile", TORCH)
    return run(backend, RunOptions(profile, select=select, **given), target=backend.name)


def results(report: Report) -> dict[str, ClauseResult]:
    return {result.clause.id: result for result in report.clauses}


def only(report: Report) -> ClauseResult:
    (result,) = report.clauses
    return result


def timeless(report: Report) -> Report:
    clauses = tuple(replace(result, seconds=0.0) for result in report.clauses)
    return replace(report, seconds=0.0, clauses=clauses)


def zeros(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
    """Wrong everywhere, and takes no options."""
    return torch.zeros(*input.shape, weight.shape[1], dtype=weight.dtype)


class TestSeeds:
    def test_a_seed_gives_the_same_report(self) -> None:
        once, again = (judged(zeros, "lookup.r*,gradient.s*", max_examples=60) for _ in range(2))
        assert timeless(once) == timeless(again)
        assert once.with_status(Status.FAIL)

    def test_another_seed_gives_another(self) -> None:
        first, second = (judged(zeros, "lookup.rows", max_examples=90, seed=k) for k in (0, 1))
        assert first.seed != second.seed
        assert only(first).status == only(second).status == Status.FAIL


class TestSelection:
    def test_only_the_clauses_that_match(self) -> None:
        report = judged(KERNEL, "lookup.rows, padding.neg*", max_examples=60)
        assert list(results(report)) == ["lookup.rows", "padding.negative"]

    def test_clauses_of_the_other_profile_are_not_there(self) -> None:
        report = judged(KERNEL, "max-norm.table-untouched,lookup.rows", max_examples=20)
        assert list(results(report)) == ["lookup.rows"]

    @pytest.mark.parametrize("most", [1, 50, 200])
    def test_no_more_cases_than_asked_for(self, most: int) -> None:
        report = judged(KERNEL, "padding.gradient*,padding.n*", max_examples=most)
        assert 0 < report.cases <= most

    def test_the_first_strata_come_first_where_cases_are_few(self) -> None:
        report = judged(KERNEL, "lookup.rows", max_examples=1)
        assert only(report).exercised == 1

    def test_exercised_counts_cases_not_steps(self) -> None:
        for result in judged(KERNEL, "lookup.*,errors.*", max_examples=150).clauses:
            assert 0 <= result.exercised <= 150
            assert result.failed == 0

    def test_failed_counts_some_of_the_exercised(self) -> None:
        result = only(judged(zeros, "lookup.rows", max_examples=100))
        assert 0 < result.failed <= result.exercised


class TestFailFast:
    def test_stops_at_the_first(self) -> None:
        fast = judged(zeros, "lookup.*", fail_fast=True)
        assert 0 < fast.cases < 20
        assert any(r.status is Status.FAIL and r.failure for r in fast.clauses)
        late = [r for r in fast.clauses if r.status is Status.UNTESTED]
        assert {r.detail for r in late} == {"the run stopped early"}

    def test_goes_to_the_end_where_nothing_fails(self) -> None:
        fast, slow = (judged(KERNEL, "lookup.*", max_examples=90, fail_fast=k) for k in (1, 0))
        assert fast.cases == slow.cases

    def test_a_broken_should_stops_a_strict_run_only(self) -> None:
        select = "errors.names-the-index"
        assert registry()[select].level == "SHOULD"
        lenient, strict = (
            judged(EAGER, select, max_examples=400, fail_fast=True, strict=k) for k in (0, 1)
        )
        assert only(lenient).status is only(strict).status is Status.FAIL
        assert lenient.conformant
        assert not strict.conformant
        assert strict.cases < lenient.cases


class TestDeviations:
    def test_a_declared_failure_is_a_deviation(self) -> None:
        row = Deviation("lookup.rows", "known", "here")
        report = judged(zeros, "lookup.rows", max_examples=40, deviations=(row,))
        result = only(report)
        assert result.status is Status.DEVIATION
        assert result.deviation == row
        assert result.failure
        assert report.conformant

    @pytest.mark.parametrize("strict", [False, True])
    def test_one_that_passes_is_reported(self, strict: bool) -> None:
        rows = (Deviation("lookup.rows", "fixed by now", "here"),)
        report = judged(KERNEL, "lookup.rows", max_examples=40, deviations=rows, strict=strict)
        assert only(report).status is Status.UNEXPECTED_PASS
        assert report.conformant is not strict

    def test_what_is_not_declared_still_fails(self) -> None:
        rows = (Deviation("lookup.rows", "known", "here"),)
        report = judged(zeros, "lookup.rows,lookup.empty", max_examples=300, deviations=rows)
        found = results(report)
        assert found["lookup.rows"].status is Status.DEVIATION
        assert found["lookup.empty"].status is Status.PASS


class TestUnsupported:
    @pytest.mark.parametrize(
        ("clause", "missing"),
        [
            ("padding.gradient-is-zero", "padding_idx"),
            ("max-norm.value", "max_norm"),
            ("sparse.equals-dense", "sparse"),
            ("module.init-normal", "module"),
        ],
    )
    def test_a_signature_says_what_is_missing(self, clause: str, missing: str) -> None:
        result = only(judged(zeros, clause, max_examples=30))
        assert result.status is Status.UNSUPPORTED
        assert result.detail == f"target has no {missing}"
        assert result.exercised == 0

    def test_a_clause_whose_needs_are_lacking_is_not_judged(self) -> None:
        backend = replace(EAGER, capabilities=Capabilities(deterministic=False))
        result = only(judged(backend, "state.repeatable-gradient", max_examples=400))
        assert result.status is Status.UNSUPPORTED
        assert "deterministic" in result.detail

    def test_a_target_without_gradients_is_not_asked_for_them(self) -> None:
        def detached(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
            return Kernel()(input, weight).detach()

        lean = Capabilities(options=frozenset(), gradient=False, double_backward=False)
        backend = Backend("detached", functional=detached, capabilities=lean)
        report = judged(backend, max_examples=400)
        assert not report.with_status(Status.FAIL)
        assert results(report)["gradient.sum"].status is Status.UNSUPPORTED
        assert results(report)["lookup.rows"].status is Status.PASS

    def test_what_may_be_refused_is_unsupported_then(self) -> None:
        class Once(Kernel):
            def second(self, *_: Any) -> Tensor:
                raise NotImplementedError("only once")

        result = only(judged(Once(), "gradient.double-backward", max_examples=400))
        assert result.status is Status.UNSUPPORTED
        assert result.detail == "refused: NotImplementedError: only once"


def odd(returned: Callable[[Tensor], Any]) -> Callable[..., Any]:
    def target(input: Tensor, weight: Tensor) -> Any:  # noqa: A002
        return returned(embedding(input, weight))

    return target


def leave(*_: Any) -> Any:
    raise SystemExit(0)


ODD: dict[str, Callable[..., Any]] = {
    "None": odd(lambda _: None),
    "text": odd(str),
    "a list": odd(lambda out: out.tolist()),
    "another tensor": odd(lambda out: out[..., :0]),
    "complex numbers": odd(lambda out: out.to(torch.complex64)),
    "booleans": odd(lambda out: out > 0),
    "a sparse tensor": odd(lambda out: out.to_sparse()),
    "a meta tensor": odd(lambda out: out.to("meta")),
    "a quantised tensor": odd(
        lambda out: torch.quantize_per_tensor(out.detach().float(), 0.1, 0, torch.qint8)
    ),
    "a complex half tensor": odd(lambda out: out.detach().to(torch.complex32)),
    "the exit": leave,
}


class TestForeignCode:
    @pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
    @pytest.mark.parametrize("kind", ODD)
    def test_a_target_that_returns(self, kind: str) -> None:
        report = judged(ODD[kind], max_examples=100)
        assert not report.conformant
        for result in report.with_status(Status.FAIL):
            assert result.failure
            assert result.failure.message

    def test_a_module_that_exits(self) -> None:
        class Leaving(torch.nn.Module):
            def __init__(self, rows: int, width: int) -> None:
                super().__init__()
                raise SystemExit(3)

            def forward(self, input: Tensor) -> Tensor:  # noqa: A002
                return input

        report = judged(Leaving, "module.*,training.*,lookup.rows", max_examples=40)
        assert not report.conformant
        assert "SystemExit" in results(report)["module.seeded-init"].detail
        assert "SystemExit" in results(report)["lookup.rows"].detail

    def test_a_target_that_prints(self, capsys: pytest.CaptureFixture[str]) -> None:
        def loud(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
            print("called")  # noqa: T201
            return Kernel()(input, weight)

        assert only(judged(loud, "lookup.rows", max_examples=40)).status is Status.PASS
        assert "called" in capsys.readouterr().out

    @pytest.mark.parametrize("share", [0.02, 0.5])
    def test_a_target_that_is_right_by_chance(self, share: float) -> None:
        chance = random.Random(0)

        def flaky(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
            out = Kernel()(input, weight)
            return out + 1 if chance.random() < share else out

        report = judged(flaky, "lookup.*,gradient.*,state.*", max_examples=300)
        broken = report.with_status(Status.FAIL)
        assert broken
        assert all(result.failure for result in broken)

    def test_a_failure_that_does_not_come_back_is_noted(self) -> None:
        calls = 0

        def once(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
            nonlocal calls
            calls += 1
            return Kernel()(input, weight) + (calls == 1)

        report = judged(once, "lookup.rows", max_examples=60)
        result = only(report)
        assert (result.status, result.failed) == (Status.FAIL, 1)
        assert result.failure
        (note,) = report.notes
        assert note.startswith("lookup.rows: the failure did not repeat")

    def test_an_interrupt_goes_through(self) -> None:
        def interrupted(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            judged(interrupted, max_examples=5)

    def test_large_failing_cases_do_not_warn(self) -> None:
        """Under -W error, as this suite runs, a warning would end the run."""

        def narrow(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
            out = Kernel()(input, weight)
            return out.index_fill(-1, torch.tensor([1024]), 0) if weight.shape[1] > 1024 else out

        report = judged(narrow, "lookup.wide-rows", fail_fast=True)
        assert only(report).status is Status.FAIL

    def test_the_number_of_threads_is_put_back(self) -> None:
        torch.set_num_threads(2)
        judged(KERNEL, "lookup.rows", max_examples=20)
        assert torch.get_num_threads() == 2


class TestShrinking:
    def test_the_smallest_case_is_shown(self) -> None:
        class SecondColumn(Kernel):
            def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
                found = super().rows(flat, weight).clone()
                found[:, 1:] += 1
                return found

        result = only(judged(SecondColumn(), "lookup.rows", fail_fast=True))
        assert result.failure
        assert (result.failure.indices, result.failure.rows) == (1, 1)
        assert len(result.failure.call.splitlines()) <= 6

    def test_several_clauses_are_found_in_one_run(self) -> None:
        report = judged(zeros, "lookup.*", max_examples=120)
        broken = [result.failure for result in report.with_status(Status.FAIL)]
        assert len(broken) >= 5
        assert all(failure and failure.message for failure in broken)
        assert sum(bool(failure and failure.call) for failure in broken) >= 4


def test_progress_is_told() -> None:
    told: list[tuple[int, int, int]] = []
    options = RunOptions(TORCH, budget="quick", select="lookup.rows", max_examples=30)
    run(as_backend("z", zeros), options, target="z", progress=lambda *now: told.append(now))
    done = [now[0] for now in told]
    assert done == sorted(done)
    assert told[-1][0] == told[-1][1] == len(told) - 1
    assert (told[0][2], told[-1][2]) == (0, 1)


def test_prepare_is_called_once() -> None:
    calls: list[int] = []
    backend = replace(KERNEL, prepare=lambda: calls.append(1))
    judged(backend, "lookup.rows", max_examples=20)
    assert calls == [1]
