"""Every block of docs/findings.md runs and sees what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from packaging.version import Version

PAGE = (Path(__file__).parents[1] / "docs" / "findings.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.+?)$.*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_finding_has_a_block() -> None:
    assert len(SECTIONS) == PAGE.count("\n## ")


@pytest.mark.skipif(
    Version(torch.__version__).release[:2] != (2, 13), reason="the findings were made on torch 2.13"
)
@pytest.mark.parametrize(("title", "code"), SECTIONS, ids=[title for title, _ in SECTIONS])
def test_finding(title: str, code: str) -> None:
    exec(compile(code, title, "exec"), {})
