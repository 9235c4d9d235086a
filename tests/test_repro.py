"""Repro scripts: they fail on the planted bug they were written for and pass on a right target."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from sampling import bug_name
from torch import Tensor

from embconform.backends.adapt import as_backend
from embconform.backends.backend import Backend
from embconform.backends.targets import resolve
from embconform.conformance.cases.literals import tensor_code
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.registry import probes
from embconform.conformance.report import Failure
from embconform.conformance.running.engine import RunOptions, run
from embconform.mutants.kernel import Kernel
from embconform.mutants.module import Layer
from embconform.mutants.registry import Planted, by_name
from embconform.reference.clause import Profile
from embconform.reference.dtypes import bits, format_of
from embconform.reference.textbook import embedding as document

TORCH = (
    "ScalarBecomesBatch",
    "WidensBfloat16",
    "AddsZero",
    "Int32Refused",
    "CachedByTableAddress",
    "RunOfRowsIsView",
    "ZeroesGapAfterRow",
    "ShiftsAt769",
    "ColumnSliceReadDense",
    "TableNeverRenormed",
    "RenormsWholeTable",
    "LastWriterWins",
    "ReplacesTheGradient",
    "AlwaysTrainable",
    "SecondIsZero",
    "OutputScaledOnItsOwn",
    "OutputZeroAtPadding",
    "SparseFlagIgnored",
    "NothingLeftRaises",
    "ClampsTooLarge",
    "FloatIndicesTruncated",
    "NamesNothing",
    "RenormsBeforeCheck",
    "OneOutputBuffer",
    "SavesTheCallersTensor",
)
TEXTBOOK = ("NoMask", "StraightThrough", "RenormsTheTable", "ClampsIndices")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


PROBED = frozenset().union(*(probe.clauses for probe in probes()))
"""Clauses that a probe decides, whose finding is no sequence of calls on one table."""
SCRIPTABLE = [bug for bug in by_name().values() if bug.clause not in PROBED]


def failure_of(target: Any, where: str, clause: str, profile: str = "torch") -> Failure:
    """Validate until the clause breaks."""
    backend = as_backend(where, target)
    for budget in ("quick", "default"):
        options = RunOptions(
            Profile(profile), budget=budget, select=clause, strict=True, fail_fast=True
        )
        (result,) = run(backend, options, target=where).clauses
        if result.failure:
            return result.failure
    raise AssertionError(result.detail)


@cache
def failure_of_bug(bug: Planted) -> Failure:
    return failure_of(bug.target, bug.where, bug.clause, bug.profile)


def right_for(bug: Planted) -> Any:
    """A right embedding that is called as the bug is."""
    if bug.profile == "textbook":
        return document
    if isinstance(bug.target, Backend):
        return Backend("right", functional=Kernel(), module=Layer)
    return Layer if isinstance(bug.target, type) else Kernel()


def execute(script: str) -> int:
    """Run a script in a namespace of its own; return its exit status."""
    try:
        exec(compile(script, "script.py", "exec"), {"__name__": "__main__"})
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        torch.use_deterministic_algorithms(False)
    raise AssertionError("the script did not exit")


def check_snippet(failure: Failure) -> None:
    assert failure.call
    if "..." not in failure.call:
        compile(failure.call, "snippet.py", "exec")


class TestPlantedBugs:
    @pytest.fixture(autouse=True)
    def _right(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def check(self, bug: Planted) -> None:
        failure = failure_of_bug(bug)
        check_snippet(failure)
        assert failure.script.startswith(f'"""{bug.clause}: ')
        assert execute(failure.script) == 1
        printed = self.capsys.readouterr().out
        assert "expected" in printed
        assert "got" in printed
        home = import_module(bug.where.partition(":")[0])
        self.monkeypatch.setattr(home, bug.name, right_for(bug))
        assert execute(failure.script) == 0, self.capsys.readouterr().out

    @pytest.mark.parametrize(
        ("name", "profile"),
        [*((name, "torch") for name in TORCH), *((name, "textbook") for name in TEXTBOOK)],
    )
    def test_fail_on_the_bug_and_pass_on_a_right_target(self, name: str, profile: str) -> None:
        self.check(by_name()[name, profile])

    @pytest.mark.slow
    @pytest.mark.parametrize("bug", SCRIPTABLE, ids=bug_name)
    def test_fail_on_every_bug_and_pass_on_a_right_target(self, bug: Planted) -> None:
        self.check(bug)


@pytest.mark.slow
def test_the_median_failing_case_is_small() -> None:
    failures = [failure_of_bug(bug) for bug in SCRIPTABLE]
    assert median(failure.indices for failure in failures) <= 4
    assert median(failure.rows for failure in failures) <= 4


def test_needs_torch_and_the_target_only() -> None:
    bug = by_name()["LastWriterWins", "torch"]
    script = failure_of(bug.target, bug.where, bug.clause).script
    own = script.replace("embconform.mutants", "mutants")  # where the target is
    assert "embconform" not in own
    lines = [line for line in script.splitlines() if line.startswith(("import ", "from "))]
    assert set(lines) <= {
        "import base64",
        "import sys",
        "import zlib",
        "import torch",
        "from importlib import import_module",
    }


class Table(torch.nn.Module):
    """A right module with the few options that its users need."""

    def __init__(
        self, rows: int, width: int, padding_idx: int | None = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(rows, width, dtype=dtype))
        self.padding_idx = padding_idx

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return Kernel()(input, self.weight, self.padding_idx)


class Doubled(Table):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 2 * super().forward(input)


class Reversed(Table):
    """Counts padding_idx from the wrong end."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        padding = None if self.padding_idx is None else len(self.weight) - 1 - self.padding_idx
        return Kernel()(input, self.weight, padding)


@pytest.mark.parametrize(
    ("wrong", "clause"),
    [(Doubled, "lookup.rows"), (Reversed, "padding.other-rows"), (Doubled, "gradient.frozen")],
)
def test_modules_too(wrong: type[Table], clause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home: Any = ModuleType("made_up")
    home.Wrong = wrong
    monkeypatch.setitem(sys.modules, "made_up", home)
    failure = failure_of(wrong, "made_up:Wrong", clause)
    check_snippet(failure)
    assert "Embedding(" in failure.script
    assert execute(failure.script) == 1
    home.Wrong = Table
    assert execute(failure.script) == 0


FILE = """
import torch
from torch.nn.functional import embedding

def mine(input, weight, padding_idx=None):
    out = embedding(input, weight, padding_idx)
    return {function}

class Mine(torch.nn.Embedding):
    def forward(self, input):
        out = super().forward(input)
        return {module}
"""


@pytest.mark.parametrize("attribute", ["mine", "Mine"])
def test_files_in_a_process_of_their_own(attribute: str, tmp_path: Path) -> None:
    home = tmp_path / "my kernel.py"
    home.write_text(FILE.format(function="out * 1.5", module="out * 1.5"))
    target = f"{home}:{attribute}"
    options = RunOptions(Profile.TORCH, budget="quick", select="lookup.rows", fail_fast=True)
    (result,) = run(resolve(target), options, target=target).clauses
    assert result.failure
    script = tmp_path / "repro.py"
    script.write_text(result.failure.script)
    for text, status in ((None, 1), (FILE.format(function="out", module="out"), 0)):
        if text:
            home.write_text(text)
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert done.stdout.startswith("expected")
        assert not done.stderr


def raising(message: str) -> Any:
    def target(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
        raise OSError(message)

    return target


@pytest.mark.parametrize("message", [r"C:\Users\N{x}\u12", '"""', "two\nlines", "nul\0", ""])
def test_messages_do_not_break_the_script(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home: Any = ModuleType("made_up")
    home.target = raising(message)
    monkeypatch.setitem(sys.modules, "made_up", home)
    failure = failure_of(home.target, "made_up:target", "lookup.rows")
    assert execute(failure.script) == 1
    home.target = Kernel()
    assert execute(failure.script) == 0


def test_an_exit_does_not_pass_for_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def target(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
        raise SystemExit(0)

    home: Any = ModuleType("made_up")
    home.target = target
    monkeypatch.setitem(sys.modules, "made_up", home)
    assert execute(failure_of(target, "made_up:target", "lookup.rows").script) == 1


def evaluate(code: str) -> Tensor:
    import base64
    import zlib

    found = eval(code, {"torch": torch, "base64": base64, "zlib": zlib})
    assert isinstance(found, Tensor)
    return found


SIZES = ((), (0,), (1,), (3,), (2, 3), (2, 0), (5, 20), (2, 3, 4), (9,), (3, 3))


class TestLiterals:
    @pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
    @pytest.mark.parametrize("shape", SIZES, ids=str)
    def test_give_the_same_bits(self, dtype: str, shape: tuple[int, ...]) -> None:
        form, rng = format_of(dtype), np.random.default_rng(0)
        whole = f"u{form.dtype.itemsize}"
        anything = rng.integers(0, np.iinfo(whole).max, shape, whole, endpoint=True)
        finite = np.asarray(rng.standard_normal(shape)).astype(form.dtype)
        for given in (
            np.asarray(anything).view(form.dtype),
            finite,
            np.full(shape, 0.1, form.dtype),
            np.full(shape, -0.0, form.dtype),
            np.full(shape, -np.inf, form.dtype),
        ):
            read = to_numpy(evaluate(tensor_code(given)))
            assert read.shape == given.shape
            assert read.dtype == given.dtype
            assert np.array_equal(bits(read), bits(given))

    @pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "int8", "bool"])
    @pytest.mark.parametrize("shape", SIZES, ids=str)
    def test_whole_numbers(self, dtype: str, shape: tuple[int, ...]) -> None:
        size = int(np.prod(shape))
        for numbers in (np.arange(size) % 7, np.arange(size)[::-1] % 2, np.full(size, 1)):
            given = numbers.reshape(shape).astype(dtype)
            read = to_numpy(evaluate(tensor_code(given)))
            assert (read.dtype, read.shape) == (given.dtype, given.shape)
            assert np.array_equal(read, given)

    def test_the_ends_of_int64(self) -> None:
        given = np.array([-(2**63), 2**63 - 1, 0])
        assert to_numpy(evaluate(tensor_code(given))).tolist() == given.tolist()

    def test_are_short_where_they_can_be(self) -> None:
        assert tensor_code(np.array([0.1, -2.5], np.float32)) == "torch.tensor([0.1, -2.5])"
        assert tensor_code(np.array([2, 0])) == "torch.tensor([2, 0])"
        assert tensor_code(np.ones((40, 2), np.float32)) == (
            "torch.full((40, 2), 1.0, dtype=torch.float32)"
        )
        large = np.random.default_rng(0).standard_normal((40, 3))
        assert tensor_code(large, whole=False) == "torch.tensor([...], dtype=torch.float64)"
