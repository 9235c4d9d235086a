"""Where the gate gets base and head from: checkouts, copies, and what pip makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from repository import PLAIN, TIDIED, Repository

from embconform.performance.gate.installed import (
    KEPT_DAYS,
    Files,
    complaint,
    find_project,
    install,
    requirements_met,
)
from embconform.performance.gate.messages import Hello, Loaded, Side
from embconform.performance.gate.revisions import Tree, checked_out, copied, find_head
from embconform.performance.gate.seat import Seat
from embconform.performance.gate.setup import Place, Ready, get_ready
from embconform.performance.gate.workers import SideError

MAPPED = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "mapped"
version = "1.0"

[tool.setuptools]
packages = ["my_pkg", "my_pkg.inner"]

[tool.setuptools.package-dir]
my_pkg = "here"
"my_pkg.inner" = "elsewhere/inside"
"""
ROOT = Path(__file__).parents[1]
OTHER = Path("a folder/x.py")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    top = tmp_path / "user"
    top.mkdir()
    return Repository(top)


def project(top: Path, pyproject: str = MAPPED) -> Path:
    """Write a package whose import names do not follow its folders."""
    (top / "here").mkdir(parents=True)
    (top / "elsewhere/inside").mkdir(parents=True)
    (top / "here/__init__.py").write_text("from my_pkg.inner import my_embedding\n")
    (top / "elsewhere/inside/__init__.py").write_text(PLAIN)
    (top / "pyproject.toml").write_text(pyproject)
    return top


def tree(top: Path, scratch: Path, commit: str = "0" * 40, *, dirty: bool = False) -> Tree:
    scratch.mkdir(exist_ok=True)
    return Tree("x", commit, top, dirty, scratch)


def test_a_copy_has_what_is_not_committed_and_not_what_is_ignored(
    repository: Repository, tmp_path: Path
) -> None:
    top = repository.top
    (top / ".gitignore").write_text("ignored\n")
    (top / "gone.py").write_text("")
    (top / "turns").mkdir()
    (top / "turns/a").write_text("a folder")
    repository.commit(PLAIN)
    repository.write(TIDIED)
    (top / "gone.py").unlink()
    (top / "turns/a").unlink()
    (top / "turns").rmdir()
    (top / "turns").write_text("a file")
    (top / "ignored").write_text("")
    (top / OTHER).parent.mkdir()
    (top / OTHER).write_text("new")
    repository.git("add", str(OTHER))
    head = find_head(top, allow_dirty=True)
    with copied(head, tmp_path / "cache") as copy:
        assert (copy.folder / "my_pkg/__init__.py").read_text() == TIDIED
        assert (copy.folder / OTHER).read_text() == "new"
        assert (copy.folder / "turns").read_text() == "a file"
        assert not (copy.folder / "gone.py").exists()
        assert not (copy.folder / "ignored").exists()
        repository.write("edited meanwhile")
        assert (copy.folder / "my_pkg/__init__.py").read_text() == TIDIED
        assert copy.dirty
    assert not copy.folder.exists()
    assert repository.worktrees == 1


def test_a_copy_does_not_write_through_a_link_that_became_a_folder(
    repository: Repository, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (repository.top / "data").symlink_to(outside)
    repository.commit(PLAIN)
    (repository.top / "data").unlink()
    (repository.top / "data").mkdir()
    (repository.top / "data/x").write_text("new")
    with copied(find_head(repository.top, allow_dirty=True), tmp_path / "cache") as copy:
        assert (copy.folder / "data/x").read_text() == "new"
    assert list(outside.iterdir()) == []


def test_worktrees_of_the_user_that_are_away_stay_known(
    repository: Repository, tmp_path: Path
) -> None:
    base = repository.commit(PLAIN)
    away = tmp_path / "stick"
    repository.git("worktree", "add", "-q", "--detach", str(away))
    away.rename(tmp_path / "taken out")
    with checked_out(repository.top, base, tmp_path / "cache"):
        assert repository.worktrees == 3
    assert repository.worktrees == 2


def test_the_nearest_project_is_the_one(tmp_path: Path) -> None:
    inner = tmp_path / "packages/one"
    (inner / "src").mkdir(parents=True)
    assert find_project(tmp_path, Path("packages/one/src")) is None
    (inner / "pyproject.toml").write_text("[tool.ruff]\n")
    assert find_project(tmp_path, Path("packages/one/src")) is None
    (tmp_path / "setup.py").touch()
    assert find_project(tmp_path, Path("packages/one/src")) == tmp_path
    (inner / "pyproject.toml").write_text("[project]\nname = 'one'\n")
    assert find_project(tmp_path, Path("packages/one/src")) == inner
    assert find_project(tmp_path, Path()) == tmp_path


def test_builds_are_isolated_where_something_is_missing() -> None:
    assert requirements_met(["packaging>=1", "setuptools"])
    assert requirements_met(["nothing-of-the-sort; python_version < '3'"])
    assert not requirements_met(["packaging>=9999"])
    assert not requirements_met(["packaging", "nothing-of-the-sort"])
    assert not requirements_met(["no requirement at all"])


def test_a_package_that_does_not_follow_its_folders_is_built_once_a_commit(tmp_path: Path) -> None:
    top, cache = project(tmp_path / "top"), tmp_path / "built"
    found = install(tree(top, tmp_path / "a"), Path(), cache)
    assert found.site is not None, found.wrong
    assert (found.site / "my_pkg/inner/__init__.py").read_text() == PLAIN
    (found.site / "mark").touch()
    old = time.time() - 2 * 86_400 * KEPT_DAYS
    os.utime(found.site, (old, old))
    assert install(tree(top, tmp_path / "b"), Path(), cache) == found
    assert (found.site / "mark").exists()
    assert found.site.stat().st_mtime > old + 86_400, "what is used is not forgotten"


def test_a_project_that_does_not_build_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    top = project(tmp_path / "top", MAPPED.replace('"elsewhere/inside"', '"nowhere"'))
    found = install(tree(top, tmp_path / "a", dirty=True), Path(), tmp_path / "built")
    assert found.site is None
    assert "package directory 'nowhere' does not exist" in found.wrong
    assert not list((tmp_path / "a").iterdir())
    assert not (tmp_path / "built").exists()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "  x.cpp:3:10: fatal error: torch/none.h: No such file\n"
            "  error: command '/usr/bin/g++' failed with exit code 1\n"
            "  ERROR: Failed building wheel for x\nERROR: Failed to build x\n",
            "error: command '/usr/bin/g++' failed with exit code 1",
        ),
        (
            "  x Getting requirements to build wheel did not run successfully.\n"
            "  │ exit code: 1\n  ╰─> [3 lines of output]\n"
            "        File \"setup.py\", line 1\n      NameError: name 'a' is not defined\n"
            "error: subprocess-exited-with-error\n",
            "NameError: name 'a' is not defined",
        ),
        (
            "ERROR: Package 'x' requires a different Python: 3.11.7 not in '>=3.99'",
            "ERROR: Package 'x' requires a different Python: 3.11.7 not in '>=3.99'",
        ),
        ("/usr/bin/python: No module named pip", "/usr/bin/python: No module named pip"),
        ("", "pip failed without a word"),
    ],
)
def test_the_line_that_tells_what_was_wrong_is_found(said: str, line: str) -> None:
    assert complaint(said) == line


class Crew:
    """Workers that load what is installed, and nothing else."""

    def __init__(self, sides: list[Side], hello: Hello, *, together: bool) -> None:
        del hello, together
        self.loaded = {}
        for side in sides:
            if not side.packages:
                raise SideError(side.name, "no module named 'my_pkg'")
            file = f"{side.roots[0]}/my_pkg/__init__.py"
            self.loaded[side.name] = Loaded(1, file, 1, "", frozenset(), frozenset())

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None: ...

    def close(self) -> None: ...


def test_a_base_that_does_not_build_is_told_from_a_head_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embconform.performance.gate.setup.Crew", Crew)
    (tmp_path / "site/my_pkg").mkdir(parents=True)
    fine, wrong = Files(tmp_path, tmp_path / "site"), Files(tmp_path, None, "error: no compiler")

    def load(base: Files, head: Files) -> Ready:
        hello = Hello((), 1, 0)
        return get_ready("my_pkg:my_embedding", base, head, Place(tmp_path), hello, wanted=())

    with pytest.raises(SideError, match=r"^it does not build: error: no compiler$") as raised:
        load(wrong, fine)
    assert raised.value.side == "base"
    with pytest.raises(SideError, match=r"no module named 'my_pkg' \(it does not build") as raised:
        load(fine, wrong)
    assert raised.value.side == "head"
    assert load(fine, fine).how == "as pip installs them"


def side(site: Path, target: str, top: Path, *packages: str) -> Side:
    return Side(
        site.name, target, (str(site),), (str(site),), str(site), str(top), frozenset(packages)
    )


def test_a_copy_of_embconform_is_loaded_beside_the_one_that_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base's eager doubles rows and head's does not, and neither is the running one."""
    import embconform.backends.eager as ours

    monkeypatch.setattr(sys, "path", list(sys.path))
    root = Path(ours.__file__).parents[1]
    seats = {}
    for name, code in (("old", "lambda i, w, **k: w[i] * 2"), ("new", "lambda i, w, **k: w[i]")):
        package = tmp_path / name / "embconform"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        for part in ("backends", "reference"):
            (package / part).symlink_to(root / part)
        (package / "backends").unlink()
        (package / "backends").mkdir()
        for file in (root / "backends").glob("*.py"):
            (package / "backends" / file.name).write_text(file.read_text())
        eager = package / "backends/eager.py"
        text = eager.read_text().replace(
            "functional=torch.nn.functional.embedding", f"functional={code}"
        )
        eager.write_text(text)
        seats[name] = Seat(
            side(tmp_path / name, "eager", tmp_path / "user", "embconform"), tuple(sys.path)
        )
    import torch

    from embconform.backends.backend import Backend

    for name, value in (("old", 2.0), ("new", 1.0)):
        with seats[name].active():
            backend = seats[name].backend
            assert type(backend) is Backend
            assert backend.functional is not None
            assert float(backend.functional(torch.tensor([0]), torch.ones(1, 1))) == value
        assert seats[name].describe().modules > 3
    assert sys.modules["embconform.backends.eager"] is ours


def test_an_editable_head_lends_base_no_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.util import spec_from_file_location

    user = tmp_path / "user"
    for folder in (user, tmp_path / "base"):
        (folder / "my_pkg").mkdir(parents=True)
        (folder / "my_pkg/__init__.py").write_text(
            "try:\n    from my_pkg.late import my_embedding\n"
            f"except ImportError:\n    {PLAIN.strip().replace(chr(10), chr(10) + '    ')}\n"
        )
    (user / "my_pkg/late.py").write_text("def my_embedding(input, weight): return 'of head'\n")

    class Editable:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            file = user / "my_pkg/late.py"
            return spec_from_file_location(name, file) if name == "my_pkg.late" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable])
    monkeypatch.setattr(sys, "path", list(sys.path))
    seat = Seat(side(tmp_path / "base", "my_pkg:my_embedding", user), tuple(sys.path))
    assert seat.backend.functional is not None
    assert seat.backend.functional.__module__ == "my_pkg"
    assert Editable in sys.meta_path


def test_namespace_packages_are_each_sides_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    values = []
    for name in ("old", "new"):
        (tmp_path / name / "space").mkdir(parents=True)
        (tmp_path / name / "space/part.py").write_text(
            f"def my_embedding(input, weight): return {name!r}\n"
        )
        seat = Seat(
            side(tmp_path / name, "space.part:my_embedding", tmp_path / "user"), tuple(sys.path)
        )
        assert seat.backend.functional is not None
        values.append(seat.backend.functional(None, None))
    assert values == ["old", "new"]
    assert "space" not in sys.modules


def gate(top: Path, target: str, base: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "embconform", "gate", "--target", target, "--base", base,
            "--workload", "movielens-items-batch-zipf-float32", "--passes", "forward",
            "--seconds", "1", *arguments,
        ],
        cwd=top, capture_output=True, text=True, timeout=1_500, check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(top.parent / "cache")},
    )  # fmt: skip


@pytest.mark.slow
def test_a_package_dir_mapping_is_gated_as_it_is_installed(repository: Repository) -> None:
    """Head adds a whole copy of the rows: found in a package that no search path could find."""
    project(repository.top)
    base = repository.commit(PLAIN)
    inner = repository.top / "elsewhere/inside/__init__.py"
    inner.write_text(PLAIN.replace("sparse=sparse)", "sparse=sparse).clone()"))
    done = gate(
        repository.top, "my_pkg:my_embedding", base,
        "--allow-dirty", "--seconds", "240", "--no-conformance", "--json", "-",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["how"] == "as pip installs them"
    assert found["together"]
    assert found["benchmarks"][0]["verdict"] == "slower"


@pytest.mark.slow
def test_a_base_that_does_not_build_is_one_line(repository: Repository) -> None:
    project(repository.top, MAPPED.replace('"elsewhere/inside"', '"nowhere"'))
    base = repository.commit(PLAIN)
    (repository.top / "pyproject.toml").write_text(MAPPED)
    repository.commit(PLAIN)
    done = gate(repository.top, "my_pkg:my_embedding", base)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    said = (
        "base can't be used: it does not build: error: package directory 'nowhere' does not exist"
    )
    assert said in done.stderr
    assert "head is fine" in done.stderr


@pytest.mark.slow
def test_embconform_gates_itself(tmp_path: Path) -> None:
    """A planted fault in head's own backend is a lost clause, judged by its own suite."""
    top = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(top)], check=True)
    eager = top / "backends/eager.py"
    call = "torch.nn.functional.embedding(i, w, padding_idx or None, **k)"
    wrong = f"lambda i, w, padding_idx=None, **k: {call}"
    eager.write_text(eager.read_text().replace("torch.nn.functional.embedding,", f"{wrong},", 1))
    done = gate(top, "eager", "HEAD", "--allow-dirty", "--select", "padding.*", "--json", "-")
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert "padding.zero-is-an-index" in found["conformance"]["lost"]
    assert found["conformance"]["passed"] > 1
    assert found["how"] == "as pip installs them"
    assert found["benchmarks"]
