"""Every block of docs/findings.md runs and sees what it says."""

from __future__ import annotations

import re
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


def test_every_finding_has_a_block() -> None:
    assert len(SECTIONS) == PAGE.count("\n## ")


@pytest.mark.skipif(
    Version(torch.__version__).release[:2] != (2, 13), reason="the findings were made on torch 2.13"
)
@pytest.mark.parametrize(("title", "code"), SECTIONS, ids=[title for title, _ in SECTIONS])
def test_finding(title: str, code: str) -> None:
    if "torch.compile(" in code and not any(map(which, ("g++", "clang++", "c++"))):
        pytest.skip("Inductor needs a C++ compiler, and none is on the PATH")
    threads = torch.get_num_threads()
    try:
        exec(compile(code, title, "exec"), {})
    finally:
        torch.set_num_threads(threads)
        torch._dynamo.reset()


def slug(title: str) -> str:
    """Make the anchor that Markdown viewers make of a heading."""
    kept = re.sub(r"[^\w\- ]", "", title.lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize("file", sorted(BACKENDS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_deviation_links_to_a_finding(file: Path) -> None:
    anchors = {f"docs/findings.md#{slug(title)}" for title, _ in SECTIONS}
    assert [row.link for row in load(file) if row.link not in anchors] == []
