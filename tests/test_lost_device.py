"""A device that is lost in a call costs the process, and neither a crash nor the rest of the run.

The device is feigned (see poisoned.py): nothing here needs a GPU.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cli_support
import numpy as np
import pytest
import torch
from torch.nn.functional import embedding

from embconform.backends.backend import Backend, TargetError
from embconform.conformance.cases.case import Backward, Call, Case, Placed
from embconform.conformance.cases.structure import OUT_OF_RANGE
from embconform.conformance.isolation import isolated as isolated_module
from embconform.conformance.isolation.isolated import Isolated
from embconform.conformance.isolation.messages import Seen, Unusable
from embconform.conformance.judging import rule
from embconform.conformance.observe import observe
from embconform.conformance.options import RunOptions
from embconform.conformance.outcome import Outcome
from embconform.conformance.probes.claims import MustRaise, Record, Unfinished
from embconform.conformance.probes.transforms.common import observe_check
from embconform.conformance.recording import attempt, record
from embconform.conformance.report import ClauseResult, Report, Status
from embconform.conformance.running.engine import run
from embconform.conformance.running.explorer import Explorer
from embconform.conformance.running.in_process import InProcess
from embconform.conformance.running.part import Part
from embconform.conformance.running.work import Draws
from embconform.conformance.settling import Settling
from embconform.reference.clause import Profile
from embconform.reference.oracle import Options

POISONED = Path(__file__).with_name("poisoned.py")
MESSAGE = "CUDA error: device-side assert triggered"
cli, folder = cli_support.cli, cli_support.folder


class Fake:
    """A device that is lost when it is told so, and that a wait finds out."""

    def __init__(self, *, for_good: bool = True) -> None:
        self.lost, self.for_good = False, for_good

    def __call__(self) -> None:
        if self.lost:
            self.lost = self.for_good
            raise RuntimeError(MESSAGE)

    def look_up(self, indices: torch.Tensor, weight: torch.Tensor, **options: Any) -> torch.Tensor:
        self()
        if bool((indices >= len(weight)).any()):
            self.lost = True
            return weight.new_zeros((*indices.shape, weight.shape[1]))
        return embedding(indices, weight, **options)

    @property
    def backend(self) -> Backend:
        return Backend("fake", functional=self.look_up, synchronize=self)


def fault(options: Options | None = None) -> Case:
    """A bad call, and a good one."""
    bad, good = Placed(np.array([1, 7])), Placed(np.array([0, 2, 2]))
    steps = (Call(bad, must_raise=True), Call(good))
    table = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    asked = options or Options()
    return Case("", Profile.TORCH, Placed(table), asked, "grad", "functional", steps)


def verdicts(case: Case, outcome: Outcome) -> dict[str, str]:
    return {
        ruling.clause: ruling.finding.message if ruling.finding else ""
        for ruling in rule(case, outcome)
    }


# one case


def test_the_error_belongs_to_its_step() -> None:
    case, device = fault(), Fake()
    outcome = observe(device.backend, case)
    first, second = outcome.steps
    assert outcome.ruined
    assert first.raised is not None
    assert first.raised.message == MESSAGE
    assert first.ruined
    np.testing.assert_array_equal(first.memory.weight, case.weight.values)
    assert second.raised is not None
    assert second.ruined
    assert outcome.final_outputs == {}


def test_what_cannot_be_read_is_not_judged() -> None:
    case = fault()
    found = verdicts(case, observe(Fake().backend, case))
    assert found["errors.too-large"] == ""
    assert "device-side assert" in found["errors.next-call-works"]
    assert "errors.atomic" not in found
    assert "IndexError" in found["errors.exception-type"]
    right = verdicts(case, observe(Backend("right", functional=embedding), case))
    assert right["errors.atomic"] == ""


@pytest.mark.parametrize(
    "options",
    [
        Options(padding_idx=0),
        Options(sparse=True),
        Options(padding_idx=2, sparse=True),
        Options(padding_idx=0, scale_grad_by_freq=True),
    ],
)
def test_after_a_loss_one_clause_speaks(options: Options) -> None:
    case = fault(options)
    rulings = list(rule(case, observe(Fake().backend, case)))
    broken = {ruling.clause for ruling in rulings if ruling.finding}
    assert broken == {
        "errors.next-call-works",
        "errors.exception-type",
        "errors.names-the-index",
    }
    after = {ruling.clause for ruling in rulings if ruling.finding and ruling.finding.step == 1}
    assert after == {"errors.next-call-works"}
    assert "lookup.rows" not in {ruling.clause for ruling in rulings}


def test_a_device_that_lives_on_is_not_lost() -> None:
    case = fault()
    outcome = observe(Fake(for_good=False).backend, case)
    assert not outcome.ruined
    assert outcome.steps[0].raised is not None
    assert verdicts(case, outcome)["errors.next-call-works"] == ""


def test_a_device_lost_in_a_backward_pass() -> None:
    device = Fake()

    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, out: torch.Tensor) -> torch.Tensor:
            return out.clone()

        @staticmethod
        def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:
            device.lost = True
            return upstream

    def look_up(indices: torch.Tensor, weight: torch.Tensor) -> Any:
        return Poison.apply(embedding(indices, weight))  # type: ignore[no-untyped-call]

    ids = Placed(np.array([0, 2]))
    upstream = Placed(np.ones((2, 2), np.float32))
    steps = (Call(ids), Backward((0,), (upstream,)))
    table = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    case = Case("", Profile.TORCH, Placed(table), Options(), "grad", "functional", steps)
    outcome = observe(Backend("late", functional=look_up, synchronize=device), case)
    assert [step.ruined for step in outcome.steps] == [False, True]
    found = verdicts(case, outcome)
    assert found["lookup.rows"] == ""
    assert "device-side assert" in found["gradient.sum"]
    assert "state.outputs-intact" not in found


# a process of the target's own


def judged(name: str, select: str, cases: int = 60) -> tuple[Report, Isolated]:
    options = RunOptions(Profile.TORCH, budget="quick", select=select, max_examples=cases)
    with Isolated(f"{POISONED}:{name}") as target:
        return run(target, options, target=name), target


def results(report: Report) -> dict[str, ClauseResult]:
    return {result.clause.id: result for result in report.clauses}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that were started, in their order."""
    workers: list[Any] = []
    start = Isolated._start

    def noted(self: Isolated) -> Any:
        workers.append(start(self))
        return workers[-1]

    monkeypatch.setattr(Isolated, "_start", noted)
    return workers


def test_a_lost_device_is_no_crash(started: list[Any]) -> None:
    report, target = judged("POISONED", "errors.*,lookup.rows")
    found = results(report)
    assert found["errors.too-large"].status is Status.PASS
    assert found["errors.negative"].status is Status.PASS
    assert found["errors.next-call-works"].status is Status.FAIL
    assert found["errors.exception-type"].status is Status.FAIL
    assert found["errors.index-dtype"].status is Status.PASS
    assert found["lookup.rows"].status is Status.PASS
    assert target.losses == (0, 0)
    assert len(started) > 10


def test_the_next_process_is_started_ahead(started: list[Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(isolated_module, "SPARES", 2)
    with Isolated(f"{POISONED}:POISONED") as target:
        assert target.observe(fault(), parallel=False).ruined
        assert len(started) == 3
        assert target.observe(fault(), parallel=False).ruined
        assert target._welcomed is started[1]
        assert target.observe(fault(), parallel=False).ruined
        assert target._welcomed is started[2]
    assert all(worker.gone() for worker in started)


def test_a_device_for_one_process_at_a_time(started: list[Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(isolated_module, "SPARES", 2)
    with Isolated(f"{POISONED}:POISONED") as target:
        assert target.observe(fault(), parallel=False).ruined
        answers = started[1].answer
        refused = [Unusable("the CUDA device can't be used here")]

        def answer(*arguments: Any) -> Any:
            return refused.pop() if refused else answers(*arguments)

        monkeypatch.setattr(started[1], "answer", answer)
        assert target.observe(fault(), parallel=False).ruined
        assert target._welcomed is started[3]
        assert started[2].gone()
        assert target.observe(fault(), parallel=False).ruined
        assert len(started) == 5


def test_a_target_that_loses_nothing_has_no_spare(started: list[Any]) -> None:
    with Isolated("eager") as target:
        assert not target.observe(fault(), parallel=False).ruined
    assert len(started) == 1


def test_tampering_in_a_process_that_ended_is_told() -> None:
    with Isolated(f"{POISONED}:TAMPERING") as target:
        assert target.observe(fault(), parallel=False).ruined
        assert target.finish() == ("time.perf_counter",)


def test_a_stratum_is_left_after_a_loss() -> None:
    device = Fake()
    options = RunOptions(Profile.TORCH, budget="quick", select="errors.too-large")
    runner = InProcess(device.backend)
    explorer = Explorer(runner, options)
    (structure,) = (s for s in explorer._strata[0] if s.name == "program=error fault=too-large")
    part = Part()
    explorer._explore(Draws((structure,), 5), 0, part)  # a second case would raise TargetError
    assert part.cases == 1


# probes


def test_a_probe_goes_on_in_another_process() -> None:
    report, target = judged("BY_MEMBER", "transforms.vmap-range,transforms.vmap-both")
    found = results(report)
    ranged = found["transforms.vmap-range"]
    bad = 5
    assert (ranged.status, ranged.detail) == (Status.PASS, "")
    assert ranged.exercised == bad
    assert found["transforms.vmap-both"].status is Status.PASS
    assert target.losses == (0, 0)


def trials(settle: Settling, ends: list[bool], lab: Any) -> Iterator[Any]:
    """Trials that lose the device where `ends` says so, with a claim before and none after."""

    def trial(number: int, loses: bool) -> Iterator[MustRaise]:
        yield MustRaise(f"{number}", None)

        def call() -> None:
            settle.backend.synchronize.lost = loses  # type: ignore[union-attr]

        if loses:
            yield attempt("bad", call)
        settle()

    return (partial(trial, number, loses) for number, loses in enumerate(ends))


def test_trials_after_a_loss_are_left_for_later() -> None:
    device = Fake()
    check = partial(trials, Settling(device.backend, "cpu"), [False, True, False])
    observed = ("transforms.vmap-range", check)
    begun = observe_check(observed, device.backend, Profile.TORCH, 0, "cpu")
    assert isinstance(begun, Unfinished)
    assert [record.ruined for record in begun.records] == [False, True]
    last = begun.records[-1]
    assert last.raised is None
    assert [claim.what for claim in last.claims if isinstance(claim, MustRaise)] == ["1", "bad"]
    device.lost = False
    ended = observe_check(observed, device.backend, Profile.TORCH, 0, "cpu", skip=2)
    assert isinstance(ended, tuple)
    assert [claim.what for claim in ended[0].claims if isinstance(claim, MustRaise)] == ["2"]


def test_a_trial_that_loses_its_device_unasked_is_broken() -> None:
    device = Fake()

    def trial() -> Iterator[MustRaise]:
        device.lost = True
        yield MustRaise("a", None)

    seen = record("transforms.vmap-range", trial, Settling(device.backend, "cpu"))
    assert seen.ruined
    assert seen.raised is not None
    assert seen.rule(may_refuse=False).finding is not None


def test_an_empty_answer_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Seen(Unfinished(()), ruined=True)]
    with Isolated("eager") as target:
        monkeypatch.setattr(target, "_ask", lambda message: answers.pop())
        assert target.probe("transforms.vmap-range", Profile.TORCH, 0) == Unfinished(())


def test_records_of_both_processes_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (Record("c", (), None, seconds) for seconds in (1.0, 2.0))
    answers = [Seen((other,)), Seen(Unfinished((one,)), ruined=True)]
    asked: list[int] = []

    def ask(message: Any) -> Any:
        asked.append(message.skip)
        return answers.pop()

    with Isolated("eager") as target:
        monkeypatch.setattr(target, "_ask", ask)
        assert target.probe("transforms.vmap-range", Profile.TORCH, 0) == (one, other)
    assert asked == [0, 1]


# in this process


def test_in_this_process_the_run_ends_with_one_line(cli: Any, folder: Path) -> None:
    (folder / "poisoned.py").write_text(POISONED.read_text())
    call = ("poisoned.py:POISONED", "--budget", "quick", "--select", "errors.*")
    result = cli("validate", *call, "--isolation", "none")
    cli_support.one_line(result, "processes of its own")
    assert "without --isolation none" in result[2]


def test_in_this_process_nothing_more_is_run() -> None:
    device = Fake()
    runner = InProcess(device.backend)
    assert runner.observe(fault(), parallel=False).ruined
    with pytest.raises(TargetError, match="lost the context of its device"):
        runner.observe(fault(), parallel=False)
    with pytest.raises(TargetError, match="lost the context of its device"):
        runner.probe("threads", Profile.TORCH, 0)


# what is asked of a device


@pytest.mark.parametrize(
    ("device", "select", "faults"),
    [
        ("cuda", "lookup.*,gradient.*", False),
        ("cuda", "*", True),
        ("cuda", "errors.too-large", True),
        ("cpu", "lookup.*", True),
    ],
)
def test_indices_out_of_range_are_spent_on_their_clauses(
    device: str, select: str, faults: bool
) -> None:
    options = RunOptions(Profile.TORCH, budget="quick", select=select, device=device)
    explorer = Explorer(InProcess(Backend("right", functional=embedding)), options)
    found = {structure.fault for structure in explorer._strata[0]}
    assert bool(found & set(OUT_OF_RANGE)) is faults
    assert "index-int8" in found


def test_the_process_that_forks_asks_for_no_device() -> None:
    code = """
import torch
from torch.autograd.variable import Variable

def never(*_, **__):
    raise AssertionError("asked for")

Variable._execution_engine = type("Engine", (), {"run_backward": never})
torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = never
from embconform.conformance.isolation.process import prepare_to_serve
prepare_to_serve()
import sys
before = set(sys.modules)
Variable._execution_engine = type("Engine", (), {"run_backward": lambda *_, **__: ()})
one = torch.ones(1, requires_grad=True)
torch.autograd.backward([one * 1], [torch.ones(1)])
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
