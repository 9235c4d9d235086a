"""What the gate says of memory, accuracy and compiling: planted faults, and right ones too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from performance_support import workload
from repository import PLAIN, Repository
from torch.nn.functional import embedding

from embconform.backends.backend import Backend
from embconform.performance.checking import Oracle, Timed
from embconform.performance.gate.benchmarks import Benchmark
from embconform.performance.gate.compiling import LOOKS, compare_compiling, smallest
from embconform.performance.gate.costs import compare_errors, weigh
from embconform.performance.measure import OTHER_SIZES
from embconform.performance.memory import (
    Compiled,
    first_call,
    measure_memory,
    recompilations,
)
from embconform.performance.passes import PASSES, Work, make_inputs, prepare
from embconform.reference.clause import Profile

LEAKY = PLAIN.replace(
    "    return embedding(input, weight, padding_idx, sparse=sparse)",
    "    rows = embedding(input, weight, padding_idx, sparse=sparse)\n"
    "    KEPT.append(rows)\n    return rows\n\n\nKEPT = []",
)
COMPILED = """
import torch


@torch.compile(dynamic=True, backend="aot_eager")
def my_embedding(input, weight):
    return torch.nn.functional.embedding(input, weight)
"""
RECOMPILED = COMPILED.replace("dynamic=True", "dynamic=False")
SLOW_TO_COMPILE = COMPILED.replace(
    '@torch.compile(dynamic=True, backend="aot_eager")',
    "def slowly(graph, inputs):\n"
    "    import time\n    time.sleep(4)\n    return graph.forward\n\n\n"
    "@torch.compile(dynamic=True, backend=slowly)",
)
"""Compiles in longer, whatever the machine: a pause is the planted slowdown."""


def on(function: Any, chosen: str = "backward", **sizes: Any) -> tuple[Oracle, Work]:
    """Get a function ready for a pass."""
    inputs = make_inputs(workload(**sizes), "cpu", 0)
    work = prepare(Backend("x", function), PASSES[chosen], inputs)
    return Oracle(PASSES[chosen], inputs, np.random.default_rng(0)), work


class Coarse(torch.autograd.Function):
    """Sums gradients in the table's own dtype, one by one: within the bound, and no better."""

    @staticmethod
    def forward(ctx: Any, ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(ids, weight)
        return weight[ids]

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        ids, weight = ctx.saved_tensors
        found = torch.zeros_like(weight)
        for k, row in enumerate(ids.tolist()):
            found[row] += upstream[0][k]
        return None, found


def coarse(input: Any, weight: Any) -> Any:  # noqa: A002
    return Coarse.apply(input, weight)


def exact(input: Any, weight: Any) -> Any:  # noqa: A002
    return embedding(input, weight.double()).to(weight.dtype)


def error_of(function: Any, **sizes: Any) -> float:
    oracle, work = on(function, **sizes)
    inputs = oracle.inputs
    assert work.before is not None
    work.before(inputs.indices[0])
    work.run(inputs.indices[0])
    assert not oracle.wrong_with(Timed(0, None), work, Profile.TORCH), "within the bound"
    return oracle.largest_error(0, work, Profile.TORCH)


def test_a_coarser_gradient_within_the_bound_is_a_finding() -> None:
    sizes: dict[str, Any] = {"rows": 20, "count": 800, "dtype": "bfloat16"}
    fine, worse = error_of(exact, **sizes), error_of(coarse, **sizes)
    assert fine <= 0.5, "rounded once"
    assert worse > 4
    found = compare_errors(fine, worse)
    assert "off by" in found.wrong
    assert not compare_errors(fine, fine).wrong
    assert not compare_errors(worse, fine).wrong


def test_terms_that_cancel_make_no_ulp_of_nothing() -> None:
    oracle, work = on(exact, rows=4, count=64)
    oracle.inputs.upstream[32:] = -oracle.inputs.upstream[:32]
    for ids, indices in zip(oracle.inputs.ids, oracle.inputs.indices, strict=True):
        ids[:] = indices.numpy()[:] = 1
    work.weight.grad = torch.full_like(work.weight, 0.0)
    work.weight.grad[1] = 1e-7
    assert oracle.largest_error(0, work, Profile.TORCH) < 2


def test_an_error_counts_from_one_ulp_on() -> None:
    assert not compare_errors(0.0, 0.99).wrong
    assert compare_errors(0.0, 1.5).wrong
    assert not compare_errors(1.0, 3.9).wrong
    assert compare_errors(1.0, 4.1).wrong == "has a gradient off by 4.1 ulp, base by 1"


def test_a_planted_leak_is_seen() -> None:
    kept = []

    def leaky(input: Any, weight: Any) -> Any:  # noqa: A002
        kept.append(embedding(input, weight))
        return kept[-1]

    found = []
    for function in (embedding, leaky):
        oracle, work = on(function, "forward")
        found.append([measure_memory(work, oracle.inputs.indices, "cpu") for _ in range(2)])
    assert not weigh(found[0], found[0]).wrong
    assert weigh(*found).wrong.startswith("keeps 0.00 MiB of each call, base")


def made(seconds: float, graphs: int = 2, recompilations: int = 0) -> Compiled:
    return Compiled(seconds, graphs, recompilations, 7)


def pairs(
    rng: np.random.Generator, slower: float = 0.0, noise: float = 0.05, until: int = 10**9
) -> Iterator[tuple[Compiled, Compiled]]:
    for k in range(10**9):
        base, head = np.exp(rng.normal(0, noise, 2))
        yield made(2 * base), made(2 * head * (1 + slower * (k < until)))


def compared(source: Iterator[tuple[Compiled, Compiled]], **options: Any) -> Any:
    return compare_compiling("x", lambda: next(source), lambda _: None, **options)


def test_slower_compiling_is_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    slow = [compared(pairs(rng, 0.5)) for _ in range(100)]
    assert sum(bool(found.wrong) for found in slow) >= 99
    assert "takes " in slow[0].wrong
    fine = [compared(pairs(rng)) for _ in range(300)]
    assert not any(found.wrong for found in fine)
    assert sum(not found.undecided for found in fine) == 300


def test_slower_compiling_has_to_recur() -> None:
    found = compared(pairs(np.random.default_rng(1), 1.0, until=LOOKS[0]))
    assert not found.wrong
    assert found.undecided == "slower compiling did not recur in fresh processes"


def test_compiling_that_varies_is_undecided_and_so_is_no_time() -> None:
    rng = np.random.default_rng(2)
    loud = [compared(pairs(rng, noise=1.0)) for _ in range(50)]
    assert not any(found.wrong for found in loud)
    unsure = [f for f in loud if f.undecided == "compiling takes too variable a time"]
    assert len(unsure) >= 40
    assert all(len(found.base) == LOOKS[-1] for found in unsure)
    found = compared(pairs(np.random.default_rng(3)), over=lambda: True)
    assert found.undecided == "the time was over before compiling was compared"
    assert len(found.base) == 2


@pytest.mark.parametrize(
    ("base", "head", "wrong"),
    [
        (made(1, 2), made(1, 8, 6), "compiles 8 graphs for 8 sizes, base 2"),
        (made(1, 2), made(1, 4), "compiles 4 graphs for 8 sizes, base 2"),
        (made(1, 8, 6), made(1, 2), ""),
        (made(1, 0), made(9, 2), ""),
        (made(1, 0), made(9, 8, 6), "compiles 8 graphs for 8 sizes, base 0"),
        (made(9, 2), made(1, 0), ""),
    ],
)
def test_graphs_are_counted(base: Compiled, head: Compiled, wrong: str) -> None:
    found = compare_compiling("x", lambda: (base, head), lambda _: None)
    assert found.wrong == wrong
    assert not found.undecided


def test_more_graphs_have_to_recur() -> None:
    turns = iter([(made(1), made(1, 8, 6))] + [(made(1), made(1))] * 20)
    assert not compare_compiling("x", lambda: next(turns), lambda _: None).wrong


def test_the_smallest_lookup_is_compiled() -> None:
    cells = [
        Benchmark(workload(rows=rows), PASSES[name])
        for rows, name in ((500, "forward"), (20, "backward"), (50, "forward"), (20, "max_norm"))
    ]
    assert smallest(cells) is cells[2]
    assert smallest(cells[1:2]) is None


def test_a_planted_recompilation_is_counted() -> None:
    graphs = []
    for dynamic in (True, False):
        torch._dynamo.reset()
        function = torch.compile(embedding, dynamic=dynamic, backend="eager")
        oracle, work = on(function, "forward")
        indices = oracle.inputs.indices[0]
        first = first_call(work, indices).graphs
        graphs.append(first + recompilations(work.run, indices, OTHER_SIZES)[0])
    torch._dynamo.reset()
    assert graphs[0] <= 2
    assert graphs[1] == 1 + len(OTHER_SIZES)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    top = tmp_path / "user"
    top.mkdir()
    return Repository(top)


def gate(repository: Repository, base: str, *arguments: str) -> tuple[int, Any]:
    command = [
        sys.executable, "-m", "embconform", "gate", "--target", "my_pkg:my_embedding",
        "--base", base, "--workload", "movielens-items-batch-zipf-float32",
        "--passes", "forward", "--json", "-", *arguments,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=repository.top, capture_output=True, text=True, timeout=1_500, check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(repository.top.parent / "cache")},
    )  # fmt: skip
    assert done.stdout.startswith("{"), done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
def test_a_leak_is_a_regression(repository: Repository) -> None:
    base = repository.commit(PLAIN)
    repository.commit(LEAKY)
    code, found = gate(repository, base, "--no-conformance", "--seconds", "1")
    assert code == 1
    assert "keeps" in found["benchmarks"][0]["memory"]["wrong"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "said"),
    [
        (RECOMPILED, "compiles 8 graphs for 8 sizes, base 2"),
        (SLOW_TO_COMPILE, "s for its first call, base"),
    ],
)
def test_worse_compiling_is_a_regression(repository: Repository, head: str, said: str) -> None:
    base = repository.commit(COMPILED)
    repository.commit(head)
    code, found = gate(repository, base, "--no-conformance", "--seconds", "250")
    assert code == 1
    assert said in found["compiling"]["wrong"]
    assert not found["together"]
