"""The CUDA clock is true. Needs a device; without one nothing here is said to hold."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from performance_support import EAGER, cell, target
from torch.nn.functional import embedding

from embconform.performance.measure import Cell, Status, measure
from embconform.performance.passes import PASSES, Work

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a CUDA device: the CUDA clock is untested on this machine",
)

ROUNDS, TRIES = 20, 5


def lookup(weight: torch.Tensor) -> Work:
    return Work(lambda indices: embedding(indices, weight), None, weight)


@pytest.fixture
def table() -> torch.Tensor:
    return torch.randn(100_000, 512, device="cuda")


@pytest.fixture
def indices() -> list[torch.Tensor]:
    return [torch.randint(0, 100_000, (65_536,), device="cuda") for _ in range(4)]


def test_our_clock_agrees_with_tritons(table: Any, indices: Any) -> None:
    testing = pytest.importorskip("triton.testing", reason="triton is missing")
    from embconform.performance.cuda import CudaTimer

    clock, work, seen = CudaTimer(cold=True), lookup(table), []
    for _ in range(TRIES):
        ratios = []
        for turn in range(ROUNDS):
            ours = clock.block(work, indices, 5, turn).ns
            run = work.run
            theirs = testing.do_bench(lambda r=run: r(indices[0]), return_mode="median") * 1e6
            ratios.append(ours / theirs)
        seen.append(float(np.median(ratios)))
        if 0.97 <= seen[-1] <= 1.03:
            return
    pytest.fail(f"ours over triton's: {seen}")


def test_work_on_another_stream_is_on_the_clock(table: Any, indices: Any) -> None:
    from embconform.performance.cuda import CudaTimer

    side = torch.cuda.Stream()

    def escape(index: torch.Tensor) -> torch.Tensor:
        output = torch.empty(len(index), table.shape[1], device="cuda")
        with torch.cuda.stream(side):
            for _ in range(50):
                torch.index_select(table, 0, index, out=output)
        return output

    clock = CudaTimer()
    honest = clock.block(lookup(table), indices, 10, 0).ns
    assert clock.escaped == 0
    escaped = clock.block(Work(escape, None, table), indices, 10, 0).ns
    assert escaped > 10 * honest
    assert clock.escaped == 10  # probing calls don't count


def test_launching_is_not_in_the_time(table: Any, indices: Any) -> None:
    """The host dawdles between two launches; the device, kept busy meanwhile, does not wait."""
    from embconform.performance.cuda import CudaTimer

    dawdled = 1_000_000

    def run(index: torch.Tensor) -> torch.Tensor:
        embedding(index[:64], table)
        until = perf_counter_ns() + dawdled
        while perf_counter_ns() < until:
            pass
        return embedding(index[:64], table)

    clock = CudaTimer(cold=True)
    assert clock.block(Work(run, None, table), indices, 10, 0).ns < dawdled / 4
    assert clock.escaped == 0


def test_the_speed_targets_are_measured(tmp_path: Path) -> None:
    """A row of each clock and group; ATen stands beside itself in a graph and on its own."""
    from embconform.performance.cuda_targets import __main__ as program

    rows = "forward-64M-4096-bfloat16-zipf,small-128-768-float32-uniform,equal-3072-*,"
    rows += "max_norm-64k-128-float32-zipf,check-host-1-*"
    arguments = ["--rows", rows, "--contenders", "aten", "--out", str(tmp_path)]
    done = CliRunner().invoke(program.main, arguments)
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / program.FILE).read_text())
    assert len(document["rows"]) == 5
    for entry in document["rows"].values():
        for result in entry["results"]:
            assert result["status"] == "ok", result
            assert len(result["samples_ns"]) >= 10
            late = result["late"] > len(result["samples_ns"]) / 2
            assert not late or entry["group"] == "max_norm", result
    shares = [r["results"][0]["share_of_copy"] for r in document["rows"].values()]
    assert all(0 < share < 1.2 for share in shares), shares
    large = {name: float(np.median(by[str(2**29)])) for name, by in document["ceilings_ns"].items()}
    assert all(2**29 / ns > 100 for ns in large.values()), large
    assert large["hot copy"] < 1.05 * large["cat"], large  # it reads next to nothing


@pytest.mark.parametrize("name", list(PASSES))
def test_eager_is_right_in_every_pass(name: str) -> None:
    where = Cell(cell(count=2_000).workload, PASSES[name], device="cuda")
    (found,) = measure(where, [target(EAGER)], seconds=0.1)
    assert found.status is Status.OK, found.detail
    assert found.memory
    assert found.memory.allocated_bytes >= 0


def test_the_chip_is_read() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is missing")
    from embconform.performance.cuda import read_chip

    chip = read_chip()
    assert chip is not None
    assert chip.sm_mhz > 0
    assert chip.driver
