"""Every block of docs/findings.md runs and sees what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest
import torch
from packaging.version import Version

from embconform.backends.deviations import load

ROOT = Path(__file__).parents[1]
BACKENDS = ROOT / "backends"
PAGE = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.+?)$.*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FOREIGN = ("fbgemm_gpu", "flax", "jax", "keras", "mlx", "numba", "onnx", "onnxruntime", "openvino")
FOREIGN += ("tinygrad", "torchao", "triton")

PACKAGES = "aoti_compile_and_package("
"""What takes a C++ compiler half a minute."""
APART = ("os.fork()", "torch.func.jvp", PACKAGES)
"""What needs a process of its own: a fork without threads, an import that warns."""


def foreign(code: str) -> list[str]:
    """List the frameworks that a block imports."""
    imported = re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
    return [name for name in FOREIGN if name in imported]


def test_every_finding_has_a_block() -> None:
    assert len(SECTIONS) == PAGE.count("\n## ")


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # Inductor's own
@pytest.mark.skipif(
    Version(torch.__version__).release[:2] != (2, 13), reason="the findings were made on torch 2.13"
)
@pytest.mark.parametrize(
    ("title", "code"),
    [
        pytest.param(*each, id=each[0], marks=[pytest.mark.slow] if PACKAGES in each[1] else [])
        for each in SECTIONS
    ],
)
def test_finding(title: str, code: str) -> None:
    compiles = "torch.compile(" in code or PACKAGES in code
    if compiles and not any(map(which, ("g++", "clang++", "c++"))):
        pytest.skip("Inductor needs a C++ compiler, and none is on the PATH")
    if absent := [name for name in foreign(code) if find_spec(name) is None]:
        pytest.skip(f"{' and '.join(absent)} not installed")
    if foreign(code) or any(word in code for word in APART):
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return
    threads = torch.get_num_threads()
    try:
        exec(compile(code, title, "exec"), {"__name__": "finding"})
    finally:
        torch.set_num_threads(threads)
        torch._dynamo.reset()


def slug(title: str) -> str:
    """Make the anchor that Markdown viewers make of a heading."""
    kept = re.sub(r"[^\w\- ]", "", title.lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize("file", sorted(BACKENDS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_deviation_links_to_a_finding(file: Path) -> None:
    pages = {"docs/findings.md", "docs/findings-cuda.md"}
    anchors = {
        f"{page}#{slug(title)}"
        for page in pages
        for title in re.findall(r"^## (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    }
    assert [row.link for row in load(file) if row.link not in anchors] == []
