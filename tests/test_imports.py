"""No file of ours is imported under two names, whichever way pytest meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "reference": "reference",
    "conformance": "conformance",
    "backends": "backends",
    "performance": "performance",
    "commands": "commands",
    "mutants": "tests/mutants",
    "right": "tests/right",
    "proof": "tests/proof",
}
TESTS = tuple(f"tests/test_{name}.py" for name in ("commands", "mutants", "right", "skipgram"))
LOOK = """
import json, os, sys
from pathlib import Path

def pytest_unconfigure(config):
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    found = {name: str(Path(file).resolve()) for name, file in files.items() if file}
    Path(os.environ["LOOK_AT"]).write_text(json.dumps(found))
"""


@pytest.fixture
def look(tmp_path: Path) -> Any:
    """Run pytest from a folder, and give its exit code, output and modules with their files."""
    (tmp_path / "look.py").write_text(LOOK)
    seen = tmp_path / "seen.json"
    paths = {"PYTHONPATH": str(tmp_path), "LOOK_AT": str(seen), "OMP_NUM_THREADS": "1"}

    def call(*arguments: str, cwd: Path = ROOT) -> tuple[int, str, dict[str, str]]:
        result = subprocess.run(
            # as `python -m pytest`, the folder is on sys.path: where two names are most at hand
            [sys.executable, "-m", "pytest", "-p", "look", "-p", "no:cacheprovider", *arguments],
            cwd=cwd, env=os.environ | paths, timeout=120,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return result.returncode, result.stdout + result.stderr, json.loads(seen.read_text())

    return call


def one_name_a_file(modules: dict[str, str]) -> None:
    tops = {name.partition(".")[0] for name in modules}
    assert not tops & PACKAGES.keys()
    names: dict[str, list[str]] = {}
    for name, file in modules.items():
        ours_not_installed = file.startswith(f"{ROOT}{os.sep}") and "site-packages" not in file
        if ours_not_installed and name != "__main__":
            names.setdefault(file, []).append(name)
    assert {file: both for file, both in names.items() if len(both) > 1} == {}
    ours = {file: name for file, (name,) in names.items()}
    for package, folder in PACKAGES.items():
        under = {name for file, name in ours.items() if Path(file).is_relative_to(ROOT / folder)}
        assert all(name.startswith(f"embconform.{package}") for name in under), package


def test_our_tests_and_the_clauses_in_one_run(look: Any) -> None:
    code, out, modules = look(
        "--co", "-q", "--pyargs", "embconform.conformance", *TESTS,
        "--embedding-backend", "eager", "--embedding-select", "lookup.rows",
    )  # fmt: skip
    assert code == 0, out
    assert "embconform.conformance::lookup.rows\n" in out
    assert "test_commands.py::test_clauses_lists_all\n" in out
    wanted = ("conformance.running.engine", "reference.oracle", "mutants.lookup", "right.by_gather")
    assert {f"embconform.{name}" for name in wanted} <= modules.keys()
    one_name_a_file(modules)


def test_clauses_named_by_their_folder(look: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def embed(input, weight):\n    return weight[input]\n")
    options = ("--embedding-backend", f"{mine}:embed", "--embedding-select", "lookup.rows")
    code, out, modules = look("conformance", *options)
    assert code == 0, out
    assert "1 passed" in out
    one_name_a_file(modules)


def test_folders_of_the_repository_without_a_backend(look: Any) -> None:
    code, out, modules = look("--co", "-q", ".", "--ignore=tests", "--ignore=benchmarks")
    assert code == pytest.ExitCode.NO_TESTS_COLLECTED, out
    one_name_a_file(modules)


def test_modules_run_as_commands(tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom embconform.commands.main import run\n"
        "run(['validate', 'nope.py:f'])\n"
        "found = {n: getattr(m, '__file__', None) for n, m in sys.modules.items()}\n"
        "print(json.dumps({n: f for n, f in found.items() if f}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    one_name_a_file(json.loads(result.stdout))


PLANTED = """
from torch.nn.functional import embedding

def embed(input, weight, padding_idx=None):
    return embedding(input, weight, padding_idx or None)  # 0 is an index
"""


def test_judges_import_no_torch(tmp_path: Path) -> None:
    """Its import takes two seconds, and only the target's process needs it."""
    (tmp_path / "planted.py").write_text(PLANTED)
    code = (
        "import json, sys\nfrom embconform.commands.main import run\n"
        "code = run(['validate', 'planted.py:embed', '--budget', 'quick', '--max-examples', '150',"
        " '--database', 'known', '--junit', 'x.xml', '--markdown', 'x.md', '--repro-dir', 'made',"
        " '--json', 'x.json'])\n"
        "print(json.dumps([code, [name for name in sys.modules if name.startswith('torch')]]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert json.loads(result.stdout.splitlines()[-1]) == [1, []]
    document = json.loads((tmp_path / "x.json").read_text())
    exercised = {row["id"] for row in document["clauses"] if row["exercised"]}
    assert {"state.threads", "training.skip-gram", "lookup.other-dtypes"} <= exercised
