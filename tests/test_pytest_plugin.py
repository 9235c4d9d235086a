"""``pytest --pyargs embconform.conformance``, as users run it: from a folder of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

torch = pytest.importorskip("torch")

import embconform.backends.eager  # noqa: E402, F401 - before pytester restores sys.modules
from embconform.backends.deviations import Deviation  # noqa: E402
from embconform.conformance import api  # noqa: E402
from embconform.conformance.report import ClauseResult, Failure, Report, Status  # noqa: E402
from embconform.reference.clause import Profile, select  # noqa: E402

torch.set_num_threads(1)

ROOT = Path(api.__file__).parents[1]
PYARGS = ("--pyargs", "embconform.conformance")
PADDING = [clause.id for clause in select(Profile.TORCH, "padding.*")]
ROWS, EMPTY, NEGATIVE, NAMED = (
    "lookup.rows", "lookup.empty", "errors.negative", "errors.names-the-index",
)  # fmt: skip
LEAN = ("-p", "lean")
"""Loads the file below, for runs in which few cases do."""
LEAN_FILE = """
from dataclasses import replace
from embconform.conformance.api import BUDGETS

BUDGETS["quick"] = replace(BUDGETS["quick"], examples=1, directed=1)
"""
MINE = """
import torch.nn.functional as F

def wrong(input, weight, padding_idx=None):
    if padding_idx:
        return F.embedding(input, weight, padding_idx)
    return F.embedding(input, weight)

def off(input, weight):
    return weight[input] + 1

def right(input, weight):
    return F.embedding(input, weight)

not_callable = 3
"""


@pytest.fixture(autouse=True)
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    (pytester.path / "mine.py").write_text(MINE)
    (pytester.path / "lean.py").write_text(LEAN_FILE)
    return pytester.path


def targeted(target: str, pattern: str = "*") -> tuple[str, ...]:
    return (*PYARGS, "--embedding-backend", target, "--embedding-select", pattern)


# real runs


def test_one_item_a_clause(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(*targeted("eager", "padding.*"), "-v")
    result.assert_outcomes(passed=len(PADDING))
    assert result.ret == 0
    result.stdout.fnmatch_lines(["embedding backend: eager, quick budget, seed 0, cpu"])
    items = [f"embconform.conformance::{clause} PASSED*" for clause in PADDING]
    result.stdout.fnmatch_lines(items)
    assert not (pytester.path / ".hypothesis").exists()


def test_a_wrong_function(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(
        *targeted("mine.py:wrong", "padding.*,sparse.layout"), "-rs", "--junitxml=j.xml"
    )
    assert result.ret == 1
    outcomes = result.parseoutcomes()
    assert outcomes["skipped"] == 1
    assert outcomes["passed"] + outcomes["failed"] == len(PADDING)
    result.stdout.fnmatch_lines(["SKIPPED * unsupported: mine.py:wrong has no sparse"])
    result.stdout.fnmatch_lines(
        [
            "*___ padding.zero-is-an-index of mine.py:wrong ___*",
            "padding.zero-is-an-index (MUST): fail",
            "  padding_idx=0 means row 0; it is not the absence of padding.",
            "  weight.grad* is 2.0, must be 0.0*",
            "  got    2.0",
            "  exact  0.0",
            "  bound  0",
            "    out0 = embedding(ids0, weight, padding_idx=0)",
            "    print(weight.grad)",
        ]
    )
    result.stdout.no_fnmatch_line("Traceback*")
    result.stdout.no_fnmatch_line("E  *")
    result.stdout.no_fnmatch_line("*.py:[0-9]*: in *")
    junit = ET.parse(pytester.path / "j.xml").getroot().findall(".//testcase")
    assert {case.get("classname") for case in junit} == {"embconform.conformance"}
    assert [case.get("name") for case in junit] == [*PADDING, "sparse.layout"]
    failed = [case.get("name") for case in junit if case.find("failure") is not None]
    assert "padding.zero-is-an-index" in failed
    assert len(failed) == outcomes["failed"]


def test_xdist(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(
        *targeted("mine.py:off", f"{ROWS},{EMPTY},sparse.layout"), "-n", "2", *LEAN
    )
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines([f"*_ {ROWS} of mine.py:off _*"])


def outcomes(pytester: pytest.Pytester, *arguments: str) -> dict[str, tuple[str, str]]:
    """Run the clauses and give what became of each, and why, as JUnit has it."""
    (pytester.path / "known.toml").write_text(
        "[[deviation]]\nclause = 'padding.zero-is-an-index'\nreason = 'known'\nlink = 'x'\n"
    )
    pytester.runpytest_subprocess(
        *targeted("mine.py:wrong", f"{ROWS},padding.*,sparse.layout,module.repr"),
        "--embedding-deviations", "known.toml", "--junit-xml", "o.xml", *LEAN, *arguments,
    )  # fmt: skip
    cases = ET.parse(pytester.path / "o.xml").getroot().findall(".//testcase")
    assert len({case.get("name") for case in cases}) == len(cases)
    found = {}
    for case in cases:
        (told,) = list(case) or [ET.Element("passed")]
        found[f"{case.get('classname')}::{case.get('name')}"] = told.tag, told.get("message", "")
    return found


@pytest.mark.slow
def test_xdist_gives_the_same_items_and_outcomes(pytester: pytest.Pytester) -> None:
    alone = outcomes(pytester)
    assert len(alone) == len(PADDING) + 3
    assert {tag for tag, _ in alone.values()} == {"passed", "failure", "skipped"}
    assert any("known deviation" in message for _, message in alone.values())
    assert outcomes(pytester, "-n", "2") == alone


# where it is installed


def test_an_unrelated_run_imports_next_to_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_imports():
            assert "torch" not in sys.modules
            ours = sorted(name for name in sys.modules if name.startswith("embconform"))
            assert ours == [
                "embconform", "embconform.conformance", "embconform.conformance.pytest_plugin"
            ]
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("embedding backend*")
    result.stdout.fnmatch_lines(["plugins:*embconform*"])


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay the packages out as a wheel does, before the editable ones on the path."""
    site = folder / "site" / "embconform"
    shutil.copytree(ROOT / "embconform", site)
    for package in ("reference", "conformance", "backends", "commands"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, site / package, ignore=ignored)
    monkeypatch.setenv("PYTHONPATH", f"{site.parent}{os.pathsep}{folder}")
    (folder / "work").mkdir()
    monkeypatch.chdir(folder / "work")
    return site


def test_as_a_wheel_installs_it(pytester: pytest.Pytester, installed: Path) -> None:
    result = pytester.runpytest_subprocess(*targeted("../mine.py:right", ROWS), "--co", "-q")
    assert result.outlines[0] == f"embconform.conformance::{ROWS}"


def test_a_run_of_the_whole_package_needs_no_backend(
    pytester: pytest.Pytester, installed: Path
) -> None:
    result = pytester.runpytest_subprocess("--pyargs", "embconform")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "error" not in result.stdout.str().lower()


# what can't be judged


def one_line(result: pytest.RunResult, said: str) -> None:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.outlines + result.errlines if line]
    assert line.startswith("ERROR: ")
    assert said in line


def test_no_backend(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(*PYARGS)
    one_line(result, "embconform.conformance needs --embedding-backend TARGET")


def test_a_bad_target_under_xdist(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(*targeted("mine.py:wrnog"), "-n", "2")
    one_line(result, "mine.py:wrnog: mine.py has no 'wrnog', did you mean 'wrong'?")


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("mine.py:wrnog", "", "mine.py has no 'wrnog', did you mean 'wrong'?"),
        ("no_such_package:f", "", "no module named 'no_such_package'"),
        ("mine.py:not_callable", "", "of type int, which can't be called"),
        ("eager", "--embedding-select=paddin.*", "'paddin.*' matches no clause of the torch"),
        ("textbook", "--embedding-profile=torch", "serves the textbook profile, not torch"),
        ("eager", "--embedding-deviations=no.toml", "can't read deviations no.toml"),
        ("eager", "--embedding-seed=-1", "the seed must be a whole number"),
    ],
)
def test_bad_arguments(pytester: pytest.Pytester, target: str, options: str, said: str) -> None:
    result = pytester.runpytest_inprocess(
        *PYARGS, "--embedding-backend", target, *options.split(), "-p", "no:cacheprovider"
    )
    one_line(result, said)


def test_a_bad_target_met_in_a_folder_is_one_line_too(
    pytester: pytest.Pytester, folder: Path
) -> None:
    (folder / "all").mkdir()
    (folder / "all" / "conformance").symlink_to(ROOT / "conformance")
    result = pytester.runpytest_inprocess("all", "--embedding-backend", "mine.py:wrnog")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["mine.py:wrnog: mine.py has no 'wrnog'*"])
    result.stdout.no_fnmatch_line("*: in collect")


# the statuses, from an engine that says what a test wants


class FakeEngine:
    """Gives each clause the status that a test wants, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: BaseException | None = None
        self.statuses: dict[str, Status] = {}

    def __call__(self, backend: Any, options: Any, *, target: str) -> Report:
        self.calls += 1
        if self.error:
            raise self.error
        clauses = tuple(self._result(clause) for clause in select(Profile.TORCH, options.select))
        return Report(
            target, Profile.TORCH, "cpu", 0, "quick", clauses, 9, 0.5, {}, strict=options.strict
        )

    def _result(self, clause: Any) -> ClauseResult:
        status = self.statuses.get(clause.id, Status.PASS)
        known = status in (Status.DEVIATION, Status.UNEXPECTED_PASS)
        wrong = status in (Status.FAIL, Status.DEVIATION)
        return ClauseResult(
            clause,
            status,
            deviation=Deviation(clause.id, "a reason", "a link") if known else None,
            failure=Failure("is wrong", call="print(1)") if wrong else None,
            detail="is wrong" if wrong else "the detail",
        )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(api, "run", fake)
    return fake


@pytest.fixture
def judge(pytester: pytest.Pytester, engine: FakeEngine) -> Iterator[Callable[..., Any]]:
    """Judge two MUST and one SHOULD clause, with deviations declared for what has them."""

    def call(*options: str) -> pytest.RunResult:
        known = [
            clause
            for clause, status in engine.statuses.items()
            if status in (Status.DEVIATION, Status.UNEXPECTED_PASS)
        ]
        (pytester.path / "known.toml").write_text(
            "".join(
                f'[[deviation]]\nclause = "{clause}"\nreason = "a reason"\nlink = "a link"\n'
                for clause in known
            )
        )
        return pytester.runpytest_inprocess(
            *targeted("mine.py:wrong", f"{ROWS},{EMPTY},{NAMED}"),
            "--embedding-deviations=known.toml", "-rA", *options,
        )  # fmt: skip

    yield call
    assert engine.calls <= 1


@pytest.mark.parametrize(
    ("clause", "status", "options", "outcome"),
    [
        (ROWS, Status.PASS, "", "passed"),
        (ROWS, Status.FAIL, "", "failed"),
        (ROWS, Status.CRASH, "", "failed"),
        (ROWS, Status.TIMEOUT, "", "failed"),
        (ROWS, Status.UNTESTED, "", "failed"),
        (ROWS, Status.UNSUPPORTED, "", "skipped"),
        (ROWS, Status.DEVIATION, "", "xfailed"),
        (ROWS, Status.DEVIATION, "--embedding-strict", "xfailed"),
        (ROWS, Status.DEVIATION, "--runxfail", "failed"),
        (ROWS, Status.UNEXPECTED_PASS, "", "xpassed"),
        (ROWS, Status.UNEXPECTED_PASS, "--embedding-strict", "failed"),
        (NAMED, Status.FAIL, "", "xfailed"),
        (NAMED, Status.FAIL, "--embedding-strict", "failed"),
        (NAMED, Status.FAIL, "--runxfail", "failed"),
        (NAMED, Status.UNTESTED, "", "skipped"),
    ],
)
def test_statuses(
    judge: Callable[..., pytest.RunResult],
    engine: FakeEngine,
    *,
    clause: str,
    status: Status,
    options: str,
    outcome: str,
) -> None:
    engine.statuses[clause] = status
    result = judge(*options.split())
    expected = {"passed": 3} if outcome == "passed" else {"passed": 2, outcome: 1}
    outcomes = result.parseoutcomes()
    outcomes.pop("warnings", None)  # of pytest within xdist, on modules that it has imported
    assert outcomes == expected
    assert result.ret == (1 if outcome == "failed" else 0)
    said = {"skipped": f"{status.value}: the detail", "xfailed": "is wrong"}
    if status is Status.DEVIATION and outcome == "xfailed":
        said["xfailed"] = "known deviation: a reason (a link)"
    result.stdout.fnmatch_lines([f"*{said.get(outcome, clause)}*"])


def test_selection_by_pytest(judge: Callable[..., pytest.RunResult], engine: FakeEngine) -> None:
    judge("-k", "rows or empty").assert_outcomes(passed=2, deselected=1)
    engine.calls = 0
    listed = judge("--collect-only", "-q")
    assert listed.outlines[:3] == [f"embconform.conformance::{id_}" for id_ in (ROWS, EMPTY, NAMED)]
    assert engine.calls == 0
    engine.statuses[EMPTY] = Status.FAIL
    judge().assert_outcomes(passed=2, failed=1)
    engine.calls = 0
    judge("--last-failed").assert_outcomes(failed=1, deselected=2)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(7), "mine.py:wrong left the process: exit(7)"),
        (RuntimeError("lost"), "RuntimeError: lost"),
    ],
)
def test_a_run_that_ends_early_fails_every_clause_and_is_not_repeated(
    judge: Callable[..., pytest.RunResult], engine: FakeEngine, error: BaseException, said: str
) -> None:
    engine.error = error
    result = judge()
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines([f"*{said}"])
    assert engine.calls == 1
