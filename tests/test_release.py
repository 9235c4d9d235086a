"""The wheel holds what it must, and embconform is imported without torch."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def check() -> Any:
    spec = spec_from_file_location("release_check", ROOT / "tools" / "release_check.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheel(check: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy, by the setuptools that are here."""
    place = tmp_path_factory.mktemp("release")
    source = check.copy_of_tracked(place / "source")
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(place)], cwd=source, capture_output=True, check=True
    )
    (built,) = place.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_packages(check: Any, wheel: Path) -> None:
    assert check.compare(wheel) == ([], [])
    names = zipfile.ZipFile(wheel).namelist()
    assert {"embconform/py.typed", "embconform/backends/gpu/embedding.cu"} <= set(names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_a_file_that_is_left_out_or_too_much_is_noticed(
    check: Any, wheel: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt.whl"
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(spoilt, "w") as less:
        for name in whole.namelist():
            if name != "embconform/py.typed":
                less.writestr(name, whole.read(name))
        less.writestr("tests/left_behind.py", "")
    assert check.compare(spoilt) == (["embconform/py.typed"], ["tests/left_behind.py"])


def test_a_package_that_is_not_listed_is_noticed(check: Any) -> None:
    wanted = list(check.expected(["conformance/new/__init__.py", "README.md", "tests/proof/x.py"]))
    assert wanted == ["embconform/conformance/new/__init__.py", "embconform/proof/x.py"]


def test_importing_embconform_imports_no_torch() -> None:
    code = "import sys, embconform; print(*sorted({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.slow  # makes an environment of its own, and judges eager by the default budget
def test_a_release_works_where_there_is_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "release_check.py")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "eager  conformant" in done.stdout
