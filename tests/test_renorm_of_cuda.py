"""What docs/findings-cuda.md says is wrong with max_norm on CUDA breaks the clauses that it names.

The kernel is written once more, for the CPU, after its source: nothing here needs a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from renorm_of_cuda import BACKEND

from embconform.backends.deviations import load
from embconform.conformance.options import RunOptions
from embconform.conformance.report import Status
from embconform.conformance.running.engine import run
from embconform.reference.clause import Profile

SELECT = (
    "max-norm.*,padding.row-returned,lookup.empty,sparse.empty,state.repeatable,"
    "state.options-apart,gradient.non-leaf-table,module.*"
)
ELSEWHERE = {"lookup.indices-unchanged", "sparse.padding-excluded", "errors.any-position"}
"""Broken by what lies beyond the table's storage, which is no memory of ours here."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_kernel_breaks_what_is_declared_of_cuda() -> None:
    options = RunOptions(Profile.TORCH, budget="quick", select=SELECT, seed=0)
    report = run(BACKEND, options, target="renorm of cuda")
    broken = {result.clause.id for result in report.clauses if result.status is Status.FAIL}
    declared = {row.clause for row in load(Path("cuda")) if "#max_norm-on-cuda" in row.link}
    assert broken == declared - ELSEWHERE
    assert len(broken) > 20
