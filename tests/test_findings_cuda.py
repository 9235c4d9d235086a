"""Every block of docs/findings-cuda.md sees what it says, on a CUDA device, in its own process."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from packaging.version import Version

PAGE = (Path(__file__).parents[1] / "docs" / "findings-cuda.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.+?)$.*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
MADE_ON = (2, 11)
AT_ONCE = 6
# a device that was lost may end the process badly, which the finding is not about
LEAVE = "\nimport os\nimport sys\nsys.stderr.flush()\nos._exit(0)\n"

Ended = subprocess.CompletedProcess[str]


def ended(code: str) -> Ended:
    """Run a block."""
    return subprocess.run(
        [sys.executable, "-c", code + LEAVE],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def blocks(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Ended]]]:
    """The blocks that were asked for, all begun: most of each is the start of a process."""
    titles = {
        item.callspec.params["title"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_finding_on_cuda"
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {title: pool.submit(ended, code) for title, code in SECTIONS if title in titles}


def test_every_finding_has_a_block() -> None:
    assert len(SECTIONS) == PAGE.count("\n## ")


@pytest.mark.parametrize("code", [code for _, code in SECTIONS])
def test_a_block_is_a_program(code: str) -> None:
    compile(code, "finding", "exec")
    assert "assert " in code


def test_a_block_that_sees_something_else_is_noticed() -> None:
    assert ended("assert 1 == 1").returncode == 0
    assert ended("assert 1 == 2").returncode == 1
    assert ended("raise SystemExit('fixed')").stderr == "fixed\n"


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a CUDA device: on this machine the findings on CUDA are not looked at again",
)
@pytest.mark.skipif(
    Version(torch.__version__).release[:2] != MADE_ON,
    reason=f"the findings on CUDA were made on torch {MADE_ON[0]}.{MADE_ON[1]}",
)
@pytest.mark.parametrize("title", [title for title, _ in SECTIONS])
def test_finding_on_cuda(title: str, blocks: dict[str, Future[Ended]]) -> None:
    done = blocks[title].result()
    assert done.returncode == 0, done.stderr[-3000:]
