"""embconform selftest: the table, the verdict, the processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from pool_support import square

from embconform.commands.main import run
from embconform.conformance.options import BUDGETS, Budget
from embconform.mutants.registry import by_name
from embconform.proof import kills, pool
from embconform.proof.hunt import Catch, Hunt, hunt
from embconform.proof.kills import Kills
from embconform.proof.pool import Died, each
from embconform.proof.right import Acceptance
from embconform.proof.tasks import HuntTask, RightTask, do

NAMES = ("ZeroMeansNoPadding", "TraceInTheEntries")
BUGS = [HuntTask(name, "torch") for name in NAMES]
PARTS = RightTask("by_incidence", select="lookup.shape")


def children() -> list[psutil.Process]:
    """List what runs below this process, but for what another test left dead and not waited for.

    What starts isolated targets stays from the first test that has one.
    """
    stay = ("resource_tracker", "isolation.fork_server")
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE
        and not any(name in " ".join(child.cmdline()) for name in stay)
    ]


def found(clause: str = "lookup.rows", catches: tuple[str, ...] = ()) -> Hunt:
    bug = next(bug for bug in by_name().values() if bug.clause == clause)
    caught = tuple(Catch(name, 5, 0.1, True) for name in catches)
    return Hunt(bug.name, bug.profile, clause, bug.story, 0, "quick", caught, 9, 1.0)


def accepted(name: str = "Kernel", **refused: str) -> Acceptance:
    return Acceptance(name, "torch", 0, "quick", dict(refused), (), 9, 1.0)


class TestHunt:
    def test_stops_at_the_bugs_own_clause(self) -> None:
        bug = by_name()["ZeroMeansNoPadding", "torch"]
        seen = hunt(bug)
        assert seen.own
        assert seen.own.cases == seen.cases < 200
        assert Hunt.from_dict(json.loads(json.dumps(seen.as_dict()))) == seen

    def test_any_is_no_later_than_own(self) -> None:
        bug = by_name()["SparseFlagIgnored", "torch"]
        soonest = hunt(bug, until="any")
        assert len({catch.cases for catch in soonest.catches}) == 1
        assert soonest.cases <= hunt(bug).cases

    def test_what_the_first_budget_misses_goes_on_with_other_cases(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, directed in (("quick", 2), ("default", 3)):
            budget = Budget(arrays=0, examples=1, directed=directed, seconds=600)
            monkeypatch.setitem(BUDGETS, name, budget)
        bug = by_name()["ZeroMeansNoPadding", "torch"]
        seen = hunt(bug, select="padding.out-of-range")
        once = hunt(bug, select="padding.out-of-range", budgets=("quick",))
        assert (once.budget, seen.budget) == ("quick", "default")
        assert not seen.caught
        assert 0 < once.cases < seen.cases < 2 * once.cases

    def test_a_should_counts_only_for_bugs_planted_for_one(self) -> None:
        bug = next(bug for bug in by_name().values() if bug.clause == "errors.names-the-index")
        assert hunt(bug).own


class TestKills:
    def test_pass_when_all_are_caught_and_accepted(self) -> None:
        table = Kills(hunts=[found(catches=("lookup.rows",))], acceptances=[accepted()])
        assert table.passed
        (group,) = table.groups()
        assert (group.planted, group.caught, group.own, group.scripted) == (1, 1, 1, 1)

    @pytest.mark.parametrize(
        "table",
        [
            Kills(hunts=[found()]),
            Kills(acceptances=[accepted(**{"lookup.rows": "no"})]),
            Kills(died=[(BUGS[0], Died("gone"))]),
        ],
    )
    def test_fail_otherwise(self, table: Kills) -> None:
        assert not table.passed

    def test_a_clause_that_the_right_embedding_breaks_catches_nothing(self) -> None:
        broken = accepted(**{"lookup.rows": "no"})
        table = Kills(hunts=[found(catches=("lookup.rows",))], acceptances=[broken])
        assert [hunt.name for hunt in table.survivors] == [table.hunts[0].name]

    def test_a_should_clause_that_it_breaks_catches_what_is_planted_for_it_alone(self) -> None:
        warned = Acceptance("Kernel", "torch", 0, "quick", {}, ("lookup.rows",), 9, 1.0)
        own, other = found(catches=("lookup.rows",)), found("lookup.shape", ("lookup.rows",))
        table = Kills(hunts=[own, other], acceptances=[warned])
        assert [hunt.clause for hunt in table.survivors] == ["lookup.shape"]

    def test_another_clause_is_not_its_own(self) -> None:
        table = Kills(hunts=[found(catches=("lookup.shape",))])
        total = table.total()
        assert (total.caught, total.own, total.scripted) == (1, 0, 0)

    def test_every_bug_is_run_under_the_plain_pattern(self) -> None:
        names = [(task.name, task.profile) for task in kills.tasks("*", 0) if task in task_bugs()]
        assert names == list(by_name())


def task_bugs() -> set[Any]:
    return {HuntTask(name, profile, aimed=True) for name, profile in by_name()}


class TestPool:
    def test_a_dead_process_costs_its_task_alone(self, capfd: pytest.CaptureFixture[str]) -> None:
        done = dict(each(square, range(6), 2))
        assert done[3] == Died("its process ended with exit code 7")
        assert done[4] == Died("ValueError: four is too much")
        assert {number: done[number] for number in (0, 1, 2, 5)} == {0: 0, 1: 1, 2: 4, 5: 25}
        assert capfd.readouterr().out == ""
        assert children() == []

    def test_leaving_early_leaves_no_process(self) -> None:
        for _ in each(square, range(2), 2):
            assert children()
            break
        assert children() == []

    def test_nothing_to_do(self) -> None:
        assert list(each(square, [], 2)) == []


class TestCommand:
    def call(self, monkeypatch: pytest.MonkeyPatch, tasks: list[Any], *more: str) -> int:
        monkeypatch.setattr(kills, "tasks", lambda select, seed: tasks)
        return run(["selftest", "--workers", "1", *more])

    def test_prints_the_table(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        file = tmp_path / "kills.json"
        assert self.call(monkeypatch, [*BUGS, PARTS], "--json", str(file)) == 0
        out = capsys.readouterr().out
        assert "by their own clause" in out
        assert "2 of 2 planted bugs caught, 1 of 1 right embeddings accepted" in out
        data = json.loads(file.read_text())
        assert data["passed"]
        assert {bug["name"] for bug in data["bugs"]} == set(NAMES)
        assert all(bug["caught"] and bug["by_its_own_clause"] for bug in data["bugs"])

    def test_names_survivors_and_refused_with_their_stories(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        survivor = found()
        results = [
            (BUGS[0], survivor),
            (PARTS, accepted(**{"lookup.shape": "is (2,), must be (3,)"})),
            (BUGS[1], Died("gone")),
        ]
        monkeypatch.setattr(pool, "each", lambda *_: iter(results))
        assert self.call(monkeypatch, BUGS) == 1
        out = capsys.readouterr().out
        assert f"{survivor.name} (torch), planted for lookup.rows: {survivor.story}" in out
        assert "Kernel (torch), by lookup.shape: is (2,), must be (3,)" in out
        assert "TraceInTheEntries: gone" in out
        assert "failed" in out

    @pytest.mark.parametrize("terminal", [True, False])
    def test_shows_a_bar_on_a_terminal_only(
        self, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
        monkeypatch.setattr(pool, "each", lambda *_: iter([(BUGS[0], found())]))
        self.call(monkeypatch, BUGS[:1])
        assert ("planted bugs and right embeddings" in capsys.readouterr().err) == terminal

    def test_json_on_stdout_is_alone_there(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(pool, "each", lambda *_: iter([(BUGS[0], found())]))
        assert self.call(monkeypatch, BUGS[:1], "--json", "-") == 1
        seen = capsys.readouterr()
        assert not json.loads(seen.out)["passed"]
        assert "Survivors" in seen.err

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--select", "padding.zero"], "did you mean"),
            (["--workers", "0"], "workers"),
            (["--seed", "-1"], "seed"),
            (["--json", "/nowhere/at/all.json"], "can't write --json"),
        ],
    )
    def test_bad_input_is_one_line(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(["selftest", *arguments]) == 2
        seen = capsys.readouterr()
        assert seen.out == ""
        assert said in seen.err
        assert len(seen.err.splitlines()) == 1

    def test_an_interrupt_leaves_no_process(self, tmp_path: Path) -> None:
        file = tmp_path / "kills.json"
        command = [sys.executable, "-m", "embconform", "selftest", "--json", str(file)]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heeds_interrupts,  # noqa: PLW1509 - it calls nothing that takes a lock
        ) as process:
            known: list[psutil.Process] = []
            while process.poll() is None and len(known) < 2:
                known = psutil.Process(process.pid).children(recursive=True)
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            try:
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == 130, err
        assert "interrupted" in err
        assert "Traceback" not in out + err
        _, alive = psutil.wait_procs(known, timeout=10)
        assert alive == []
        assert not file.exists()


def heeds_interrupts() -> None:
    """Undo what a shell's & does to the tests and so to their children, which ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_tasks_run_in_this_process_too() -> None:
    assert isinstance(do(BUGS[0]), Hunt)
