"""What bridges another framework, with NumPy in its place; and wrong bridges, which are caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import AS_IT_IS, NUMPY, Exchange, bridge, with_autograd
from embconform.conformance.options import RunOptions
from embconform.conformance.report import BROKEN, Status
from embconform.conformance.running.engine import run
from embconform.reference.clause import Profile

Pull = Callable[[Any, Any, Any, int | None], Any]


def add_all(gradient: Any, indices: Any, upstream: Any, padding: int | None) -> None:
    np.add.at(gradient, indices, upstream)
    if padding is not None:
        gradient[padding] = 0


def forget_padding(gradient: Any, indices: Any, upstream: Any, padding: int | None) -> None:
    add_all(gradient, indices, upstream, None)


def keep_the_last(gradient: Any, indices: Any, upstream: Any, padding: int | None) -> None:
    gradient[indices] = upstream
    if padding is not None:
        gradient[padding] = 0


def mask_the_first_row(gradient: Any, indices: Any, upstream: Any, padding: int | None) -> None:
    add_all(gradient, indices, upstream, None if padding is None else 0)


def judged(
    pull_into: Pull = add_all,
    exchange: Exchange = NUMPY,
    read: Callable[[Any], Any] = lambda indices: indices,
    cases: int = 60,
) -> list[str]:
    """Judge np.take with a gradient, each of them right unless told; list the broken clauses."""

    def look_up(indices: Any, weight: Any, padding_idx: int | None = None) -> Any:
        if indices.dtype not in (np.int32, np.int64):
            raise TypeError("int32 or int64")
        if indices.size and (indices.min() < 0 or indices.max() >= len(weight)):
            raise IndexError(f"{indices.min()} or {indices.max()}")
        if padding_idx is not None and not -len(weight) <= padding_idx < len(weight):
            raise ValueError(f"padding_idx {padding_idx}")
        shape, dtype = weight.shape, weight.dtype

        def pull(upstream: Any) -> Any:
            gradient = np.zeros(shape, np.float64)
            pull_into(gradient, indices, upstream.astype(np.float64), padding_idx)
            return gradient.astype(dtype)

        return np.take(weight, read(indices), axis=0), pull

    backend = Backend(
        "numpy-take",
        functional=bridge(look_up, exchange),
        capabilities=Capabilities(options=frozenset({"padding_idx"}), double_backward=False),
    )
    select = "lookup.[!h]*,padding.*,gradient.*,errors.too-large,errors.atomic"
    options = RunOptions(Profile.TORCH, budget="quick", select=select, max_examples=cases)
    report = run(backend, options, target="numpy-take")
    assert len(report.with_status(Status.PASS)) > 10
    return [result.clause.id for result in report.with_status(*BROKEN)]


def test_a_right_bridge_conforms() -> None:
    assert judged() == []


@pytest.mark.parametrize(
    ("pull_into", "clause"),
    [
        (forget_padding, "padding.gradient-is-zero"),
        (keep_the_last, "gradient.many-indices"),
        (mask_the_first_row, "padding.gradient-is-zero"),
    ],
)
def test_a_wrong_pullback_is_caught(pull_into: Pull, clause: str) -> None:
    assert clause in judged(pull_into)


def through_float32(tensor: torch.Tensor) -> Any:
    array = NUMPY.enter(tensor)
    return array.astype(np.float32).astype(array.dtype) if array.dtype.kind == "f" else array


def test_an_exchange_that_rounds_is_caught() -> None:
    assert "lookup.float64" in judged(exchange=Exchange(through_float32, NUMPY.leave), cases=400)


def test_an_exchange_that_loses_the_layout_is_caught() -> None:
    def flat(tensor: torch.Tensor) -> Any:
        base = (
            tensor if tensor.is_contiguous() else tensor.as_strided(tensor.shape, _compact(tensor))
        )
        return NUMPY.enter(base)

    broken = judged(exchange=Exchange(flat, NUMPY.leave), cases=170)
    assert {"lookup.strided-weight", "lookup.strided-indices"} & set(broken)


def _compact(tensor: torch.Tensor) -> list[int]:
    return list(torch.empty(tensor.shape, device="meta").stride())


def test_clipped_indices_are_caught() -> None:
    assert "lookup.tall-table" in judged(read=lambda indices: np.minimum(indices, 1), cases=170)


def embedding(pull: bool = True) -> Callable[..., torch.Tensor]:
    def look_up(indices: Any, weight: Any) -> Any:
        def back(upstream: Any) -> Any:
            gradient = np.zeros_like(weight)
            np.add.at(gradient, indices, upstream)
            return gradient

        return weight[indices], back if pull else None

    return bridge(look_up, NUMPY)


def test_indices_that_were_written_to_since_raise() -> None:
    ids, weight = torch.tensor([0, 1]), torch.ones(3, 2, requires_grad=True)
    out = embedding()(ids, weight)
    ids.fill_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_there_is_no_second_derivative() -> None:
    weight = torch.ones(3, 2, requires_grad=True)
    upstream = torch.ones(1, 2, requires_grad=True)
    out = embedding()(torch.tensor([1]), weight)
    (gradient,) = torch.autograd.grad(out, weight, upstream, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_without_a_pullback_no_gradient_is_promised() -> None:
    weight = torch.ones(3, 2, requires_grad=True)
    assert not embedding(pull=False)(torch.tensor([1]), weight).requires_grad
    assert embedding()(torch.tensor([1]), weight).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_numpy_arrays_share_the_tensors_memory(dtype: torch.dtype) -> None:
    tensor = torch.arange(6.0).to(dtype).reshape(2, 3).t()
    array = NUMPY.enter(tensor)
    assert array.shape == (3, 2)
    assert array.__array_interface__["data"][0] == tensor.data_ptr()
    assert NUMPY.leave(array).data_ptr() == tensor.data_ptr()
    assert torch.equal(NUMPY.leave(array), tensor)
    if dtype is torch.bfloat16:
        assert array.dtype == ml_dtypes.bfloat16


def test_autograd_gives_the_pullback_of_what_torch_runs() -> None:
    def look_up(indices: torch.Tensor, weight: torch.Tensor) -> Any:
        return with_autograd(lambda table: table[indices], weight)

    weight, ids = torch.ones(3, 2, requires_grad=True), torch.tensor([2, 2])
    bridge(look_up, AS_IT_IS)(ids, weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad[:, 0].tolist() == [0.0, 0.0, 2.0]
    with torch.inference_mode():
        assert not bridge(look_up, AS_IT_IS)(ids, weight).requires_grad
        made = torch.ones(3, 2)
    assert not bridge(look_up, AS_IT_IS)(ids, made).requires_grad
