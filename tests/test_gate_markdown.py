"""What a stranger's pull request can make the gate's comment say: words, and nothing that acts."""

from __future__ import annotations

from pathlib import Path

import pytest

from embconform.performance.gate.render import markdown
from embconform.performance.gate.report import GateReport
from embconform.performance.gate.revisions import Tree


def report(target: str, said: str, branch: str) -> GateReport:
    side = Tree(branch, "a" * 40, Path("unused"), dirty=False)
    return GateReport(
        target, side, side, (), {"token forward": said}, (), None, void=False, restarts=1,
        together=True, apart="", how="", quoted="", command=f"embconform gate --target {target}",
        environment={}, seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "said",
    ["ask @maintainer", "fixes #1", "see https://forge.test/a/b/issues/1", "worse\n/close\n"],
    ids=["person", "issue", "link", "command"],
)
def test_what_a_target_says_calls_nobody(said: str) -> None:
    written = markdown(report("mine.py:f", said, "feature/#12@me"))
    for sign in ("@maintainer", "#1", "@me", "https://"):
        assert sign not in written
    assert all(not line.startswith("/") for line in written.splitlines())


def test_code_holds_its_backticks() -> None:
    written = markdown(report("a`b``c.py:f", "slow", "main"))
    assert "``` a`b``c.py:f ```: main" in written
    assert "Repeat: ``` embconform gate --target a`b``c.py:f ```" in written
