"""Foreign code cannot hurt a run: a target that dies, hangs, eats or lies costs one case."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pytest

from embconform.backends.backend import TargetError
from embconform.conformance.cases.case import Call, Case, Placed
from embconform.conformance.isolation import limits
from embconform.conformance.isolation.forking import Forks, server
from embconform.conformance.isolation.isolated import Isolated, _portions
from embconform.conformance.isolation.limits import GIB, Limits
from embconform.conformance.judging import rule
from embconform.conformance.options import RunOptions
from embconform.conformance.outcome import Lost
from embconform.conformance.report import ClauseResult, Report, Status
from embconform.conformance.running.engine import run
from embconform.reference.clause import Profile
from embconform.reference.oracle import Options

HOSTILE = Path(__file__).with_name("hostile.py")
LIMITS = Limits(case=20.0, memory=GIB)
SELECT = "lookup.rows,lookup.float64,lookup.half-precision"


def judged(name: str, select: str = SELECT, within: Limits = LIMITS, cases: int = 120) -> Report:
    options = RunOptions(Profile.TORCH, budget="quick", select=select, max_examples=cases)
    with Isolated(f"{HOSTILE}:{name}", limits=within) as target:
        report = run(target, options, target=name)
        return replace(report, tampered=target.finish())


def results(report: Report) -> dict[str, ClauseResult]:
    return {result.clause.id: result for result in report.clauses}


def _targets() -> set[psutil.Process]:
    """The processes of targets that descend from this one."""
    servers = psutil.Process().children()
    servers = [each for each in servers if "fork_server" in " ".join(each.cmdline())]
    return {child for server in servers for child in server.children(recursive=True)}


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """After each test only the process that starts targets is left, and no target of the test."""
    before = _targets()
    yield
    assert _targets() <= before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("segfaults", "the process died of SIGSEGV at hostile.py:"),
        ("aborts", "the process died of SIGABRT at hostile.py:"),
        ("leaves", "the process ended itself with exit code 0"),
        ("interrupts", "raised KeyboardInterrupt"),
        ("kills_its_group", "the process died of SIGKILL"),
        ("closes_everything", "the process"),
        ("leaves_a_child", "the process ended itself with exit code 5"),
    ],
)
def test_a_crash_costs_the_case_that_it_happened_in(name: str, said: str) -> None:
    report = judged(name)
    found = results(report)
    crashed = found["lookup.float64"]
    assert crashed.status is Status.CRASH
    assert said in crashed.detail
    assert crashed.failure is not None
    assert "torch.float64" in crashed.failure.call
    assert "dtype=torch.float64" in crashed.failure.script
    assert found["lookup.rows"].status is Status.PASS
    assert found["lookup.half-precision"].status is Status.PASS
    assert not report.conformant


def test_a_gradient_that_nobody_can_read_is_the_targets_fault() -> None:
    found = results(judged("gives_a_lazy_gradient", "gradient.float64"))
    assert found["gradient.float64"].status is Status.FAIL
    assert "its stream is gone" in found["gradient.float64"].detail


def test_the_semaphores_of_a_process_go_with_it() -> None:
    there = Path("/dev/shm")
    if not there.is_dir():
        pytest.skip("named semaphores can be listed on Linux only")
    report = judged("keeps_semaphores")
    assert results(report)["lookup.float64"].status is Status.CRASH
    left = [file for file in there.glob("sem.mp-*") if file.stat().st_ctime > time.time() - 60]
    assert not left


def test_so_do_those_of_one_whose_judges_were_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path("/dev/shm")
    if not there.is_dir():
        pytest.skip("named semaphores can be listed on Linux only")
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from multiprocessing import get_context\nkept = []\n"
        "def keeps(i, w):\n    kept.append(get_context('spawn').Lock())\n    return w[i]\n"
    )
    table, calls = Placed(np.zeros((2, 1))), (Call(Placed(np.array([1]))),)
    case = Case("by hand", Profile.TORCH, table, Options(), "no_grad", "functional", calls)
    line = server().line()
    monkeypatch.setattr("embconform.conformance.isolation.worker.server", lambda: Forks(line))

    def semaphores() -> set[Path]:
        return set(there.glob("sem.mp-*"))

    before = semaphores()
    target = Isolated(f"{mine}:keeps")
    target.observe(case, parallel=False)
    made = semaphores() - before
    assert made
    line.close()  # as the system does where a helper is killed
    until = time.monotonic() + 20
    while made & semaphores() and time.monotonic() < until:
        time.sleep(0.05)
    assert not made & semaphores()


def test_a_crash_in_the_backward_pass_is_the_gradients() -> None:
    report = judged("segfaults_backward", "lookup.float64,gradient.float64")
    found = results(report)
    assert found["lookup.float64"].status is Status.PASS
    assert found["gradient.float64"].status is Status.CRASH


def test_a_hang_is_a_timeout() -> None:
    report = judged("hangs", within=Limits(case=1.5))
    found = results(report)
    assert found["lookup.float64"].status is Status.TIMEOUT
    assert "no answer within 1.5 s" in found["lookup.float64"].detail
    assert found["lookup.half-precision"].status is Status.PASS
    assert not report.conformant


def test_who_was_late_once_is_waited_for_less_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_CASE", 4.0)
    monkeypatch.setattr(limits, "_IMPATIENT", 3.0)
    table, ids = Placed(np.zeros((2, 1))), Placed(np.array([1]))
    case = Case("by hand", Profile.TORCH, table, Options(), "no_grad", "functional", (Call(ids),))
    with Isolated(f"{HOSTILE}:hangs") as target:
        lost = [target.observe(case, parallel=False).steps[0].lost for _ in range(2)]
    said = [each.detail for each in lost if each is not None]
    assert said == ["no answer within 4 s", "no answer within 3 s"]
    assert Limits().case_seconds(compiled=False, slowest=0.01) == 3
    assert Limits().case_seconds(compiled=False, slowest=0.35) == 3.5
    assert Limits(case=3).case_seconds(compiled=False, slowest=0.2) == 3


def test_a_crash_is_not_held_against_the_outputs_before_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("import os\ndef dies(i, w):\n    return w[i] if i.all() else os._exit(3)\n")
    table = Placed(np.array([[1.0], [2.0]], np.float32))
    calls = (Call(Placed(np.array([1]))), Call(Placed(np.array([0]))))
    case = Case("by hand", Profile.TORCH, table, Options(), "grad", "functional", calls)
    with Isolated(f"{mine}:dies") as target:
        outcome = target.observe(case, parallel=False)
    assert [step.lost is not None for step in outcome.steps] == [False, True]
    broken = {ruling.clause for ruling in rule(case, outcome) if ruling.finding}
    assert "lookup.rows" in broken
    assert "state.outputs-intact" not in broken


def test_a_crash_costs_none_of_the_cases_beside_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("import os\ndef dies(i, w):\n    return w[i] if i.all() else os._exit(3)\n")
    table = Placed(np.array([[1.0], [2.0]], np.float32))

    def case(*ids: int) -> tuple[Case, bool]:
        calls = tuple(Call(Placed(np.array([k]))) for k in ids)
        return Case(str(ids), Profile.TORCH, table, Options(), "grad", "functional", calls), False

    with Isolated(f"{mine}:dies") as target:
        seen = list(target.observe_all([case(1), case(1, 0), case(1, 1), case(0), case(1)]))
        assert target.losses == (2, 0)
    lost = [[step.lost is not None for step in outcome.steps] for outcome in seen]
    assert lost == [[False], [False, True], [False, False], [True], [False]]


@pytest.mark.parametrize("kind", ["crash", "timeout"])
def test_a_mark_that_a_target_wrote_to_is_not_trusted(kind: Literal["crash", "timeout"]) -> None:
    table, calls = Placed(np.zeros((2, 1))), (Call(Placed(np.array([1]))),)
    case = Case("by hand", Profile.TORCH, table, Options(), "no_grad", "functional", calls), False
    with Isolated("eager") as target:
        seen = list(target._despite(Lost(kind, "lost", 2**62), (case, case)))
    assert [outcome.steps[-1].lost is not None for outcome in seen] == [False, True]


def test_large_cases_are_not_sent_together() -> None:
    def case(rows: int) -> tuple[Case, bool]:
        table = Placed(np.zeros((rows, 4)))
        steps = (Call(Placed(np.array([0]))),)
        return Case("", Profile.TORCH, table, Options(), "grad", "functional", steps), False

    small, large = case(3), case(2**18)
    assert list(_portions([small, small, large, small, large, large])) == [
        (small, small),
        (large,),
        (small,),
        (large,),
        (large,),
    ]


def test_who_interrupts_while_a_process_is_replaced_keeps_what_was_seen(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import os, time\ntime.sleep(1)\ndef leaves(i, w): os._exit(0)\n")
    table, ids = Placed(np.zeros((2, 1))), Placed(np.array([1]))
    case = Case("by hand", Profile.TORCH, table, Options(), "no_grad", "functional", (Call(ids),))
    wish: list[str] = []
    with Isolated(f"{slow}:leaves", stop=lambda: bool(wish)) as target:
        (crashed,) = target.observe(case, parallel=False).steps
        wish.append("stop")
        (given_up,) = target.observe(case, parallel=False).steps
        assert crashed.lost is not None
        assert given_up.lost is not None
        assert crashed.lost.detail == "the process ended itself with exit code 0"
        assert given_up.lost.detail == "the run was stopped"
        assert target.losses == (1, 0)


def test_unbounded_allocation_ends_the_target_and_not_the_machine() -> None:
    report = judged("eats")
    found = results(report)
    assert found["lookup.float64"].status in (Status.CRASH, Status.FAIL)
    assert "emory" in found["lookup.float64"].detail
    assert found["lookup.half-precision"].status is Status.PASS


def test_a_flood_is_counted_and_kept_away(capfd: pytest.CaptureFixture[str]) -> None:
    options = RunOptions(Profile.TORCH, budget="quick", select=SELECT, max_examples=60)
    with Isolated(f"{HOSTILE}:floods") as target:
        assert run(target, options, target="floods").conformant
        target.finish()
        assert target.printed.total_bytes > 4_000_000
        assert len(target.printed.head) <= 64 * 1024
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_target_cannot_run_code_among_the_judges(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = tmp_path / "reached"
    monkeypatch.setenv("EMBCONFORM_TEST_MARK", str(mark))
    report = judged("sends_a_command")
    crashed = results(report)["lookup.float64"]
    assert crashed.status is Status.CRASH
    assert "UnpicklingError" in crashed.detail
    assert not mark.exists()


def test_tampering_is_seen() -> None:
    report = judged("patches_torch", cases=20)
    assert report.tampered == ("time.perf_counter", "torch.equal")
    assert not report.conformant


def test_nothing_is_tampered_with_by_right_targets() -> None:
    options = RunOptions(Profile.TORCH, budget="quick", max_examples=300)
    with Isolated("eager") as target:
        run(target, options, target="eager")
        assert target.finish() == ()


def test_the_same_report_as_in_this_process() -> None:
    from embconform.backends.eager import BACKEND

    select = "l*,p*,module.*,transforms.vmap-*"
    options = RunOptions(Profile.TORCH, budget="quick", max_examples=300, select=select)
    with Isolated("eager") as target:
        apart = run(target, options, target="eager")
    here = run(BACKEND, options, target="eager")
    for one, other in zip(apart.clauses, here.clauses, strict=True):
        assert replace(one, seconds=0.0) == replace(other, seconds=0.0)
    assert apart.cases == here.cases


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "the process died of SIGSEGV"),
        ("import os; os._exit(4)", "the process ended itself with exit code 4"),
        ("raise KeyError('x')", "it.py failed: KeyError: 'x'"),
    ],
)
def test_a_target_that_dies_when_imported(code: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text(code)
    with pytest.raises(TargetError) as raised, Isolated(str(tmp_path / "it.py") + ":x") as target:
        assert target.description
    assert said in str(raised.value)


def test_arrays_of_every_size_cross() -> None:
    from multiprocessing import Pipe

    from embconform.conformance.isolation.transport import SHARED_FROM, Channel, Memory

    ours, theirs = Pipe()
    up, down = Memory(), Memory()
    sender = Channel(ours, up, down, distrust=True)
    receiver = Channel(
        theirs, Memory(os.dup(down.number)), Memory(os.dup(up.number)), distrust=True
    )
    for size in (0, 1, SHARED_FROM // 8 - 1, SHARED_FROM // 8, 3 * SHARED_FROM, 10):
        sent = {"a": np.arange(size), "b": np.ones((size, 2), np.float16)[:, ::2]}
        sender.send(sent)
        got = receiver.receive()
        for name, array in sent.items():
            np.testing.assert_array_equal(got[name], array)
            assert got[name].dtype == array.dtype
        got["a"][...] = 0  # it is ours to write to


INTERRUPTED = """
import sys
from pathlib import Path
from embconform.commands.main import run
from embconform.conformance.isolation.isolated import Isolated

observe_all = Isolated.observe_all

def and_tell(self, cases):
    for outcome in observe_all(self, cases):
        Path({begun!r}).touch()
        yield outcome

Isolated.observe_all = and_tell
sys.exit(run({arguments!r}))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_report_and_nothing_else(
    number: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    arguments = ["validate", "eager", "--json", "out.json"]
    begun = tmp_path_factory.mktemp("begun") / "begun"
    code = INTERRUPTED.format(arguments=arguments, begun=str(begun))
    shared = Path("/dev/shm")
    files = set(shared.glob("*"))
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _wait_until(begun.exists, "nothing was judged")
    family = psutil.Process(child.pid).children(recursive=True)
    assert len(family) >= 2
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert b"interrupted" in out
    report = (tmp_path / "out.json").read_text()
    assert '"interrupted": true' in report
    assert '"verdict": "nonconformant"' in report
    psutil.wait_procs(family, timeout=10)
    assert not any(process.is_running() for process in family)
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert {path for path in shared.glob("*") if "embconform" in path.name} <= files


def _wait_until(happened: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < until, otherwise
        time.sleep(0.05)


def test_a_killed_judge_takes_its_targets_along(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = INTERRUPTED.format(arguments=["validate", "eager"], begun=str(begun))
    child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.DEVNULL)
    _wait_until(begun.exists, "nothing was judged")
    family = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
