"""Planted slowdowns and cheats: each shows in the number it should, within one run."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from performance_support import (
    EAGER,
    Leaky,
    against_eager,
    cell,
    extra_copy,
    target,
    whole_table,
)
from torch.nn.functional import embedding

from embconform.backends.backend import Backend
from embconform.performance.checking import Oracle, Timed
from embconform.performance.growth import grow
from embconform.performance.measure import Status, measure
from embconform.performance.passes import PASSES, make_inputs, prepare
from embconform.reference.clause import Profile


def test_an_extra_copy_shows_in_allocations_and_time() -> None:
    where = cell(rows=2_000, width=64, count=4_000)
    eager, copied = against_eager(extra_copy, where, memory=True, seconds=0.3)
    assert eager.memory
    assert copied.memory
    assert copied.memory.allocated_bytes == 2 * eager.memory.allocated_bytes
    assert copied.memory.allocations == 2 * eager.memory.allocations
    assert copied.ratio
    assert copied.ratio.value > 1.1
    assert copied.share_of_ceiling != copied.share_of_ceiling  # no bandwidth was measured
    assert eager.ratio
    assert eager.ratio.value == 1


def test_an_extra_copy_shows_in_the_peak() -> None:
    where = cell(rows=1_000, width=256, count=20_000)  # 20 MB, which the allocator gives back
    eager, copied = against_eager(extra_copy, where, memory=True)
    assert eager.memory
    assert copied.memory
    assert copied.memory.peak_bytes > 1.5 * eager.memory.peak_bytes > 0


def test_a_leak_shows_in_what_is_kept() -> None:
    where = cell(rows=100, width=16, count=64)
    eager, leaky = against_eager(Leaky(), where, memory=True)
    assert eager.memory
    assert leaky.memory
    assert leaky.memory.kept_bytes == 64 * 16 * 4
    assert eager.memory.kept_bytes == 0


def compiled(*, dynamic: bool) -> Backend:
    """Compile with Dynamo alone, which takes no C++ compiler and no seconds."""

    def lookup(input: Any, weight: Any, **options: Any) -> Any:  # noqa: A002
        return embedding(input, weight, **options)

    function = torch.compile(lookup, backend="eager", dynamic=dynamic, fullgraph=True)

    def prepare_dynamo() -> None:
        torch._dynamo.config.recompile_limit = 64

    name = "any size" if dynamic else "each size"
    return Backend(name, function, compiled=True, prepare=prepare_dynamo)


def test_recompiling_on_each_size_shows_in_recompilations() -> None:
    torch._dynamo.reset()
    targets = [target(EAGER), target(compiled(dynamic=True)), target(compiled(dynamic=False))]
    eager, any_size, each_size = measure(cell(), targets, seconds=0.05)
    assert eager.compiled
    assert any_size.compiled
    assert each_size.compiled
    assert eager.compiled.graphs == 0
    assert any_size.compiled.recompilations == 0
    assert any_size.compiled.graphs >= 1
    assert each_size.compiled.recompilations >= each_size.compiled.sizes - 2
    assert each_size.compiled.first_call_seconds > eager.compiled.first_call_seconds


@pytest.mark.slow  # an exponent over five sizes needs a machine that is not shared
def test_a_forward_over_the_whole_table_shows_in_the_exponent() -> None:
    eager, whole = grow(
        PASSES["forward"],
        "V",
        [target(EAGER), target(whole_table)],
        device="cpu",
        seconds=0.05,
        seed=0,
        threads=1,
        largest=1_000_000,
    )
    assert whole.exponent.value > 0.75
    assert eager.exponent.value < 0.5
    assert eager.ranked
    assert whole.ranked


# Cheats: fast and wrong.


class Remembers:
    """Gives for the same index tensor what it gave the last time."""

    __name__ = "remembers"

    def __init__(self) -> None:
        self.known: dict[int, torch.Tensor] = {}

    def __call__(self, input: Any, weight: Any) -> Any:  # noqa: A002
        if id(input) not in self.known:
            self.known[id(input)] = embedding(input, weight)
        return self.known[id(input)]


class RemembersGradient:
    """Computes a gradient once for each index tensor."""

    __name__ = "remembers_gradient"

    def __init__(self) -> None:
        known: dict[int, torch.Tensor] = {}

        class Lookup(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, input: Any, weight: Any) -> Any:  # noqa: A002
                ctx.input, ctx.rows = input, len(weight)
                return weight[input]

            @staticmethod
            def backward(ctx: Any, upstream: Any) -> Any:
                if id(ctx.input) not in known:
                    zeros = torch.zeros(ctx.rows, upstream.shape[-1])
                    known[id(ctx.input)] = zeros.index_add_(0, ctx.input, upstream)
                return None, known[id(ctx.input)]

        self.lookup = Lookup

    def __call__(self, input: Any, weight: Any) -> Any:  # noqa: A002
        return self.lookup.apply(input, weight)


class Late(torch.Tensor):
    """A tensor of a class of its own, which may compute when it is looked at."""


def lazy(input: Any, weight: Any) -> Any:  # noqa: A002
    return embedding(input, weight).as_subclass(Late)


def in_a_thread(input: Any, weight: Any) -> Any:  # noqa: A002
    output = torch.full((*input.shape, weight.shape[1]), float("nan"))

    def fill() -> None:
        time.sleep(0.05)
        output.copy_(embedding(input, weight))

    threading.Thread(target=fill, daemon=True).start()
    return output


def drops_the_last(input: Any, weight: Any) -> Any:  # noqa: A002
    output = embedding(input, weight)
    return torch.cat([output[:-1], torch.zeros_like(output[-1:])])


@pytest.mark.parametrize("cheat", [Remembers(), lazy, drops_the_last, in_a_thread])
def test_cheats_in_the_forward_are_not_ranked(cheat: Any) -> None:
    # few rounds: a thread is left behind by each call
    eager, other = against_eager(cheat, cell(count=2_000), seconds=0.01)
    assert eager.status is Status.OK
    assert eager.checked >= 2
    assert other.status is Status.WRONG
    assert "in a timed call" in other.detail
    assert not other.ranked


def test_a_remembered_gradient_is_not_ranked() -> None:
    eager, other = against_eager(RemembersGradient(), cell("backward"))
    assert eager.status is Status.OK
    assert other.status is Status.WRONG


def test_a_gradient_that_was_not_cleared_would_show() -> None:
    where = cell("backward")
    inputs = make_inputs(where.workload, "cpu", 0)
    work = prepare(EAGER, where.chosen, inputs)
    import numpy as np

    oracle = Oracle(where.chosen, inputs, np.random.default_rng(0))
    assert work.before
    work.before(inputs.indices[0])
    work.run(inputs.indices[0])
    assert oracle.wrong_with(Timed(0, None), work, Profile.TORCH) == ""
    kept = work.weight.grad
    work.before(inputs.indices[0])
    work.weight.grad = kept
    work.run(inputs.indices[0])
    assert "beyond their error bound" in oracle.wrong_with(Timed(0, None), work, Profile.TORCH)


def crashes(input: Any, weight: Any) -> Any:  # noqa: A002
    raise RuntimeError("no kernel for this")


def no_options(input: Any, weight: Any) -> Any:  # noqa: A002
    return embedding(input, weight)


def test_a_crash_costs_the_target_alone() -> None:
    eager, other = against_eager(crashes, cell())
    assert eager.ranked
    assert other.status is Status.CRASH
    assert other.detail == "RuntimeError: no kernel for this"
    assert other.seconds is None


def test_what_a_target_can_t_do_is_unsupported() -> None:
    from embconform.backends.adapt import as_backend

    backend = as_backend("no_options", no_options)
    _, other = against_eager(backend, cell("sparse"))
    assert other.status is Status.UNSUPPORTED
    assert other.detail == "has no sparse"


def test_a_broken_clause_marks_the_options_it_speaks_of() -> None:
    broken = {"max-norm.rows": frozenset({"max_norm"})}
    marked = target(EAGER, "marked", **broken)
    (renormed,) = measure(cell("max_norm"), [marked], seconds=0.02, memory=False)
    (plain,) = measure(cell("forward"), [marked], seconds=0.02, memory=False)
    assert renormed.status is Status.NONCONFORMANT
    assert renormed.detail == "breaks max-norm.rows"
    assert renormed.seconds
    assert not renormed.ranked
    assert plain.ranked
