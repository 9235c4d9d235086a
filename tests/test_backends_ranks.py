"""Tables that several processes hold together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from embconform.backends import dtensor, ranks

ROOT = Path(__file__).parents[1]
PROCESS = "embconform.backends.rank_process"
pytestmark = pytest.mark.skipif(
    dtensor.unavailable() is not None, reason=dtensor.unavailable() or ""
)


@pytest.fixture(autouse=True, scope="module")
def _threads() -> Iterator[None]:
    """Torch's gloo takes a thread of its own; the ranks end with the tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    ranks.close()
    torch.set_num_threads(before)


def nurseries() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if PROCESS in child.cmdline()]


def helpers() -> list[psutil.Process]:
    return [child for nursery in nurseries() for child in nursery.children()]


def test_a_rank_without_rows_is_waited_for_in_vain() -> None:
    """Not a hang of ours: docs/findings.md shows torch's. The ranks after it are others."""
    ids = torch.tensor([0])
    assert torch.equal(dtensor.row_3(ids, torch.ones(5, 2)), torch.ones(1, 2))
    before = helpers()
    waited = "the ranks wait in vain for rank 2, which alone raised RuntimeError: index_select"
    with pytest.raises(ranks.RanksHungError, match=waited):
        dtensor.row_3(ids, torch.ones(4, 2))
    with pytest.raises(ranks.RanksHungError, match=waited):  # nothing to wait for in this one
        dtensor.row_3(ids, torch.ones(4, 0).requires_grad_()).sum().backward()
    assert torch.equal(dtensor.row_3(ids, torch.ones(5, 2)), torch.ones(1, 2))
    assert set(helpers()).isdisjoint(before)


def test_what_all_ranks_raise_costs_no_rank() -> None:
    before = (dtensor.row_3(torch.tensor([0]), torch.ones(5, 2)), helpers())[1]
    with pytest.raises(RuntimeError, match="axis dim should be positive"):
        dtensor.row_3(torch.tensor([0]), torch.ones(0, 2))
    assert torch.equal(dtensor.row_3(torch.tensor([0]), torch.ones(5, 2)), torch.ones(1, 2))
    assert helpers() == before


def test_a_checkpoint_does_not_recompute_within_the_ranks_own_backward_pass() -> None:
    """What saves nothing until it is asked again would ask for a turn in the midst of another."""
    weight, ids = torch.ones(5, 2).requires_grad_(), torch.tensor([1, 1])
    out = checkpoint(lambda table: dtensor.row_3(ids, table) * 2, weight, use_reentrant=False)
    assert isinstance(out, torch.Tensor)
    out.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[0, 0], [4, 4], [0, 0], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("look_up", "size"),
    [(dtensor.row_3, 3), pytest.param(dtensor.column_3, 3, marks=pytest.mark.slow)],
)
def test_a_vocabulary_that_the_ranks_do_not_divide(look_up: object, size: int) -> None:
    assert callable(look_up)
    weight = torch.arange(14.0).reshape(7, 2).requires_grad_()
    ids = torch.tensor([[6, 0, 4], [6, 3, 3]])
    out = look_up(ids, weight, padding_idx=4)
    assert torch.equal(out, weight.detach()[ids])
    out.sum().backward()
    assert weight.grad is not None
    assert weight.grad[:, 0].tolist() == [1, 0, 0, 2, 0, 0, 2]
    assert len(helpers()) == size - 1
    ranks.close()
    assert nurseries() == []


@pytest.mark.slow
def test_ranks_that_are_lost_are_started_again() -> None:
    weight, ids = torch.ones(4, 2), torch.tensor([1])
    dtensor.row(ids, weight)
    (first,) = helpers()
    first.kill()
    with pytest.raises(RuntimeError, match="gloo/transport"):
        dtensor.row(ids, weight)
    assert torch.equal(dtensor.row(ids, weight), torch.ones(1, 2))
    assert [helper.pid for helper in helpers()] != [first.pid]


@pytest.mark.slow
def test_torchruns_ranks_are_used() -> None:
    options = ["--select", "lookup.*,gradient.sum", "--budget", "quick", "--database", "none"]
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", "29617", "-m", "embconform"),
            *("validate", "dtensor-row", *options),
        ],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "dtensor-row  conformant" in ended.stdout, ended.stdout + ended.stderr
