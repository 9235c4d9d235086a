"""Make a release in dist/, and see that it works where there is nothing but the release.

Run ``python tools/release_check.py`` with ``embconform[release]`` installed: it builds sdist and
wheel, checks their metadata and files, installs the wheel into an empty environment, and validates
eager PyTorch there, from another folder. It takes some minutes and leaves nothing but dist/.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copy, rmtree
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
NOT_SHIPPED = {"reference/SPEC.md"}
MOST_SECONDS = 0.3
"""In which embconform must be imported, at the best of several tries."""
TRIES = 7
IMPORT = """
import sys, time
begun = time.perf_counter()
import embconform
took = time.perf_counter() - begun
assert "site-packages" in embconform.__file__, embconform.__file__
assert "torch" not in sys.modules, "importing embconform imports torch"
print(took)
"""


def main() -> None:
    """Do all of it, and stop at the first thing that is wrong."""
    dist = ROOT / "dist"
    rmtree(dist, ignore_errors=True)
    with TemporaryDirectory(prefix="embconform-release-") as name:
        place = Path(name)
        source = copy_of_tracked(place / "source")
        run(sys.executable, "-m", "build", "--outdir", dist, source)
        run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())
        (wheel,) = dist.glob("*.whl")
        missing, foreign = compare(wheel)
        if missing or foreign:
            raise SystemExit(f"{wheel.name} lacks {missing} and should not have {foreign}")
        python = install(wheel, place / "venv")
        elsewhere = place / "elsewhere"
        elsewhere.mkdir()
        took = min(seconds_to_import(python, elsewhere) for _ in range(TRIES))
        if took > MOST_SECONDS:
            raise SystemExit(f"importing embconform takes {took:.2f} s, not {MOST_SECONDS}")
        run(python.with_name("embconform"), "validate", "eager", "--database", "none", at=elsewhere)
    print(f"dist/{wheel.name} is right; embconform is imported in {1000 * took:.1f} ms")  # noqa: T201


def tracked() -> list[str]:
    """List the files that git has, or would have."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in found.stdout.splitlines() if (ROOT / name).exists()]


def copy_of_tracked(folder: Path) -> Path:
    """Copy those files, so that no build leaves anything among them or finds an older one's."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / name)
    return folder


def expected(files: list[str]) -> Iterator[str]:
    """Say what a wheel must hold: all files of the packages' folders, under the packages' names."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = {
        where: package.replace(".", "/") for package, where in settings["package-dir"].items()
    }
    for name in files:
        for where, package in folders.items():
            if name.startswith(f"{where}/") and name not in NOT_SHIPPED:
                yield package + name.removeprefix(where)


def compare(wheel: Path) -> tuple[list[str], list[str]]:
    """List what a wheel lacks, and what it holds that is no file of a package."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = set(expected(tracked()))
    return sorted(wanted - held), sorted(held - wanted)


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel and what it needs, as constraints.txt pins it; give the Python there."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    (home,) = folder.glob("lib/python*/site-packages/embconform")
    if not (home / "py.typed").is_file():
        raise SystemExit("the installed package has no py.typed")
    return python


def seconds_to_import(python: Path, folder: Path) -> float:
    """Import embconform in a new process, and see that torch is not."""
    done = subprocess.run(
        [python, "-c", IMPORT],
        cwd=folder, env=clean(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout)


def run(*command: str | Path, at: Path = ROOT) -> None:
    """Run a command, and stop where it fails."""
    print("+", *command, flush=True)  # noqa: T201
    done = subprocess.run([str(word) for word in command], cwd=at, env=clean(), check=False)
    if done.returncode:
        raise SystemExit(f"it ended with exit code {done.returncode}")


def clean() -> dict[str, str]:
    """Give the environment without what lets Python find other packages."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


if __name__ == "__main__":
    main()
