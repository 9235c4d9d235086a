"""What the tests of the command line share: a folder, a fake engine, a way to call."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from embconform.commands import main  # noqa: E402
from embconform.conformance.report import ClauseResult, Failure, Report, Status  # noqa: E402
from embconform.conformance.running import engine  # noqa: E402
from embconform.reference.clause import select  # noqa: E402

torch.set_num_threads(1)

GOOD = """
def embed(input, weight, padding_idx=None):
    return weight[input]
"""
MUST = "padding.gradient-is-zero"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "good.py").write_text(GOOD)
    return tmp_path


@pytest.fixture
def runs(monkeypatch):
    """Replace the engine by one that passes everything but what a test wants broken."""
    fake = FakeEngine()
    monkeypatch.setattr(engine, "run", fake)
    return fake


class FakeEngine:
    def __init__(self):
        self.seen = []
        self.broken = {}
        self.act = lambda: None

    def __call__(self, backend, options, *, target, progress=None, stop=None, spread=None):
        self.seen.append((backend, options))
        if progress:
            progress(1, 2, 0)
        self.act()
        clauses = tuple(
            ClauseResult(clause, self._status(clause), 3, failure=self._why(clause))
            for clause in select(options.profile, options.select)
        )
        return Report(
            target, options.profile, options.device, options.seed, options.budget, clauses, 9, 0.5,
            {"torch": "2"}, strict=options.strict, replay="theirs",
        )  # fmt: skip

    def _status(self, clause):
        return self.broken.get(clause.id, Status.PASS)

    def _why(self, clause):
        if clause.id in self.broken:
            return Failure("is wrong", got="1", call="print(1)", script="print('wrong')")
        return None


@pytest.fixture
def cli(capfd):
    def call(*arguments):
        code = main.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def one_line(result, said):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("embconform: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert said in err


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "embconform", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, **options,
    )  # fmt: skip
