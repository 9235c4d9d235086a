"""The operator around a set of kernels, on kernels with nothing clever in them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_kernels import OPERATOR, PlainKernels, embedding

from embconform.backends.gpu.faults import range_check
from embconform.backends.gpu.kernels import decoded, encoded
from embconform.conformance.api import check_backend

PLAIN = f"{Path(__file__).parent / 'support' / 'plain_kernels.py'}:embedding"


def test_it_is_an_embedding() -> None:
    check_backend(PLAIN)


@pytest.mark.parametrize("bad", [-1, 3, 2**40])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_bad_index_is_named_and_the_table_kept(bad: int, max_norm: float | None) -> None:
    weight = torch.full((3, 2), 5.0)
    with pytest.raises(IndexError, match=rf"index {bad} is out of range: .* 0\.\.2"):
        embedding(torch.tensor([0, bad]), weight, max_norm=max_norm)
    assert torch.all(weight == 5)


@pytest.mark.parametrize("index", [-1, -(2**63), 0, 1, 2**62])
def test_a_bad_index_is_told_as_a_number_that_is_not_0(index: int) -> None:
    assert encoded(index) != 0
    assert decoded(encoded(index)) == index


def test_there_are_derivatives_of_any_order() -> None:
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([1, 1, 3])
    for options in ({}, {"padding_idx": 1}):  # counts divide each order: no derivative's derivative
        torch.autograd.gradgradcheck(lambda w, o=options: embedding(ids, w, **o).pow(3), (weight,))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # Inductor's
def test_it_compiles_as_one_graph() -> None:
    @torch.compile(fullgraph=True)
    def loss(ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return embedding(ids, weight, padding_idx=0).sum()

    weight = torch.randn(4, 3, requires_grad=True)
    loss(torch.tensor([0, 1, 1]), weight).backward()
    assert weight.grad is not None
    assert weight.grad[:, 0].tolist() == [0.0, 2.0, 0.0, 0.0]


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch.func's own
def test_a_tangent_passes_through() -> None:
    weight, tangent = torch.randn(4, 3), torch.randn(4, 3)
    ids = torch.tensor([2, 0])
    _, found = torch.func.jvp(lambda w: embedding(ids, w), (weight,), (tangent,))
    assert torch.equal(found, tangent[ids])


def test_a_sparse_gradient_cannot_be_scaled_which_the_lookup_need_not_know() -> None:
    weight = torch.randn(2, 2, requires_grad=True)
    rows = embedding(torch.tensor([1]), weight, scale_grad_by_freq=True, sparse=True)
    assert torch.equal(rows, weight[1:])
    with pytest.raises(RuntimeError, match="can't be scaled"):
        rows.sum().backward()


@pytest.mark.parametrize(
    ("ids", "weight", "said"),
    [
        (torch.tensor([0.0]), torch.zeros(2, 2), "int64 or int32"),
        (torch.tensor([0]), torch.zeros(2), "2 dimensions"),
        (torch.tensor([0], device="meta"), torch.zeros(2, 2), "meta"),
    ],
)
def test_what_is_no_lookup_is_refused(ids: torch.Tensor, weight: torch.Tensor, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        embedding(ids, weight)


def test_an_unknown_range_check_is_refused() -> None:
    with pytest.raises(ValueError, match="there are sync and async"), range_check("never"):  # type: ignore[arg-type]
        pass


def test_kernels_are_made_once() -> None:
    assert isinstance(OPERATOR.kernels, PlainKernels)
    assert OPERATOR.kernels is OPERATOR.kernels


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch.func's own
@pytest.mark.parametrize("options", [{}, {"padding_idx": 1}, {"scale_grad_by_freq": True}])
def test_torch_func_differentiates_it(options: dict[str, Any]) -> None:
    weight, ids = torch.randn(4, 3, dtype=torch.float64), torch.tensor([[1, 1, 3], [0, 2, 1]])

    def loss(lookup: Any, table: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return lookup(indices, table, **options).pow(3).sum()

    mine, torchs = (partial(loss, each) for each in (embedding, torch.nn.functional.embedding))
    grad = torch.func.grad
    torch.testing.assert_close(grad(mine)(weight, ids), grad(torchs)(weight, ids))
    samples = torch.vmap(grad(mine), (None, 0))(weight, ids)
    torch.testing.assert_close(samples, torch.stack([grad(torchs)(weight, each) for each in ids]))
    if "scale_grad_by_freq" not in options:  # counts divide each order
        second = torch.func.jacrev(grad(torchs))(weight, ids)
        torch.testing.assert_close(torch.func.hessian(mine)(weight, ids), second)
