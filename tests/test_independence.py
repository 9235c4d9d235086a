"""What may import what: the oracle knows nothing of torch, and arrows point one way."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from embconform.mutants.registry import all_planted

PLANTS = {"mutants", "right", "proof"}
FORBIDDEN = {
    "reference": {"backends", "conformance", "performance", "commands", *PLANTS},
    "backends": {"conformance", "performance", "commands", *PLANTS},
    "conformance": {"performance", "commands", *PLANTS},
    "performance": {"conformance", "commands", *PLANTS},
    "mutants": {"conformance", "performance", "commands", "proof"},
    "right": {"conformance", "backends", "performance", "commands", "mutants", "proof"},
    "proof": {"performance", "commands"},
}
WITH_TORCH = {"textbook"}


def folder(package: str) -> Path:
    home = importlib.import_module(f"embconform.{package}").__file__
    assert home
    return Path(home).parent


def modules(package: str) -> list[Path]:
    return sorted(folder(package).rglob("*.py"))


def dotted(package: str, path: Path) -> str:
    parts = path.relative_to(folder(package)).with_suffix("").parts
    return ".".join(["embconform", package, *(part for part in parts if part != "__init__")])


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_point_one_way(package: str) -> None:
    found = modules(package)
    assert found
    for path in found:
        for name in imports(path):
            first, _, rest = name.partition(".")
            assert first not in FORBIDDEN[package], f"{path.name} imports {name}"
            if first == "embconform":
                assert rest.split(".")[0] not in FORBIDDEN[package], f"{path.name} imports {name}"


def test_the_reference_imports_no_torch() -> None:
    names = [dotted("reference", path) for path in modules("reference")]
    wanted = [name for name in names if name.rpartition(".")[2] not in WITH_TORCH]
    assert len(wanted) == len(names) - len(WITH_TORCH)
    code = (
        "import importlib, sys\n"
        f"for name in {wanted!r}: importlib.import_module(name)\n"
        "import embconform.reference.clause as clause\n"
        "assert clause.registry()\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'torch'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


def test_the_oracle_does_not_ask_torchs_embedding() -> None:
    for path in modules("reference"):
        if path.stem not in WITH_TORCH:
            assert not any(name.split(".")[0] == "torch" for name in imports(path)), path.name


def loaded() -> list[ModuleType]:
    return [module for module in list(sys.modules.values()) if getattr(module, "__file__", None)]


@pytest.mark.parametrize("package", [*FORBIDDEN, "commands"])
def test_no_file_is_loaded_under_two_names(package: str) -> None:
    files = {path.resolve() for path in modules(package)}
    all_planted()
    names: dict[Path, set[str]] = {}
    for module in loaded():
        path = Path(str(module.__file__)).resolve()
        if path in files and module.__name__ != "__main__":
            names.setdefault(path, set()).add(module.__name__)
    assert names
    for path, found in names.items():
        assert found == {dotted(package, path)}
