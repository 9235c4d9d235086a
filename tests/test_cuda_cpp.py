"""The kernels in embedding.cu: right, and compiled without spills. On a CPU they are emulated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emulated import COMPILER, EmulatedKernels, EmulatedModule

from embconform.backends.gpu.cuda_launch import SOURCE, CudaKernels
from embconform.backends.gpu.kernels import NO_ROW, decoded

DEVICES = ["emulated", *(["cuda"] if torch.cuda.is_available() else [])]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
EPS = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}


@pytest.fixture(params=DEVICES)
def kernels(request: pytest.FixtureRequest) -> Iterator[tuple[Any, torch.device]]:
    if request.param == "cuda":
        yield CudaKernels(), torch.device("cuda")
    elif COMPILER is None:
        pytest.skip("needs a C++ compiler to emulate the kernels")
    else:
        yield EmulatedKernels(), torch.device("cpu")


@pytest.mark.skipif("cuda" in DEVICES, reason="the kernels run on the device below")
def test_the_kernels_are_only_emulated_here() -> None:
    pytest.skip("needs a CUDA device: embedding.cu is emulated on this machine, not run")


def cells(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    fault = torch.zeros(1, dtype=torch.int64, device=device)
    report = torch.zeros(1, dtype=torch.int64)
    return fault, report.pin_memory() if device.type == "cuda" else report


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def drawn(count: int, rows: int, device: torch.device, kind: str = "uniform") -> torch.Tensor:
    rng = np.random.default_rng(count + rows)
    ids = rng.integers(0, rows, count) if kind == "uniform" else rng.zipf(1.2, count) % rows
    return torch.from_numpy(np.zeros(count, np.int64) + 3 if kind == "equal" else ids).to(device)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int8, torch.complex128, torch.float8_e5m2])
@pytest.mark.parametrize("width", [1, 3, 8, 24, 75, 96, 257])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_a_gather_copies_bits(kernels: Any, dtype: Any, width: int, index: Any) -> None:
    made, device = kernels
    raw = torch.randint(0, 256, (40, width * dtype.itemsize), dtype=torch.uint8, device=device)
    weight = raw.view(dtype)
    ids = drawn(33, 40, device).to(index)
    out = made.gather(weight, ids, *cells(device))
    assert torch.equal(bits(out), bits(raw)[ids.long()])


@pytest.mark.parametrize("layout", ["transposed", "offset", "columns", "expanded"])
def test_a_gather_reads_any_strides(kernels: Any, layout: str) -> None:
    made, device = kernels
    base = torch.randn(30, 30, device=device)
    weight = {
        "transposed": base.t(),
        "offset": base.reshape(-1)[1:871].view(29, 30),
        "columns": base[:, 3:11],
        "expanded": base[:1].expand(30, 30),
    }[layout]
    ids = drawn(50, weight.shape[0], device)
    assert torch.equal(made.gather(weight, ids, *cells(device)), weight[ids])


def test_padding_comes_out_as_zero_and_a_scale_is_applied(kernels: Any) -> None:
    made, device = kernels
    weight, ids = torch.randn(20, 12, device=device), drawn(60, 20, device)
    scale = torch.rand(20, device=device)
    exact = weight[ids] * (ids != 5)[:, None]
    out = made.gather(weight, ids, *cells(device), padding_idx=5)
    assert torch.equal(out, exact)
    out = made.gather(weight, ids, *cells(device), padding_idx=5, scale=scale)
    assert torch.equal(out, exact * scale[ids][:, None])


@pytest.mark.parametrize("bad", [-1, 20, 2**32 + 3, -(2**40)])
@pytest.mark.parametrize("strided", [False, True])
def test_a_bad_index_is_named(kernels: Any, bad: int, strided: bool) -> None:
    made, device = kernels
    weight = torch.randn(12, 20, device=device).t() if strided else torch.randn(20, 12)
    weight, ids = weight.to(device), drawn(60, 20, device)
    ids[41] = bad
    for look in (made.gather, lambda w, i, f, r: made.check(i, 20, f, r)):
        fault, report = cells(device)
        look(weight, ids, fault, report)
        settle(device)
        assert decoded(int(fault)) == decoded(int(report)) == bad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [2.0, 1.0, 0.5, 3.0, torch.inf, -torch.inf, 0.0])
@pytest.mark.parametrize("strided", [False, True])
def test_each_row_is_bounded_once(kernels: Any, dtype: Any, p: float, strided: bool) -> None:
    made, device = kernels
    torch.manual_seed(0)
    base = torch.randn(24, 40, device=device, dtype=torch.float64).to(dtype) * 3
    weight = base.t() if strided else base.clone()
    before = weight.clone()
    ids = drawn(200, 12, device)
    made.renorm(weight, ids, 2.0, p, cells(device)[0])
    norms = torch.linalg.vector_norm(before.double(), p, dim=1)
    touched = torch.zeros(len(weight), dtype=torch.bool, device=device)
    touched[ids] = True
    above = touched & (norms > 2.0)
    exact = torch.where(above[:, None], before.double() * (2 / (norms + 1e-7))[:, None], before)
    torch.testing.assert_close(weight.double(), exact.double(), rtol=30 * EPS[dtype], atol=0)
    assert torch.equal(bits(weight[~above]), bits(before[~above]))


def test_a_norm_that_overflows_is_found(kernels: Any) -> None:
    made, device = kernels
    weight = torch.full((2, 4), 1e200, dtype=torch.float64, device=device)
    made.renorm(weight, torch.tensor([1], device=device), 2.0, 2.0, cells(device)[0])
    assert weight[1].tolist() == pytest.approx([1.0] * 4)


def test_a_norm_beyond_the_largest_number_bounds_its_row(kernels: Any) -> None:
    made, device = kernels
    weight = torch.full((2, 4), 1.5e308, dtype=torch.float64, device=device)
    weight[1, 2] *= -1
    made.renorm(weight, torch.tensor([1], device=device), 2.0, 2.0, cells(device)[0])
    assert weight[1].tolist() == pytest.approx([1.0, 1.0, -1.0, 1.0], rel=1e-15)


def test_a_fault_stops_the_renorm(kernels: Any) -> None:
    made, device = kernels
    weight = torch.full((3, 4), 9.0, device=device)
    fault = torch.ones(1, dtype=torch.int64, device=device)
    made.renorm(weight, torch.tensor([1], device=device), 2.0, 2.0, fault)
    assert torch.all(weight == 9)


def summed(upstream: torch.Tensor, ids: torch.Tensor, rows: int, padding: int, freq: bool) -> Any:
    wide = upstream.double()
    sums = torch.zeros(rows, upstream.shape[1], dtype=torch.float64, device=ids.device)
    size = sums.clone()
    sums.index_add_(0, ids, wide)
    size.index_add_(0, ids, wide.abs())
    if freq:
        counts = torch.bincount(ids, minlength=rows).clamp(min=1)[:, None]
        sums, size = sums / counts, size / counts
    if padding != NO_ROW:
        sums[padding] = 0
        size[padding] = 0
    return sums, size


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.bfloat16,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (torch.float64, torch.float16)),
    ],
)
@pytest.mark.parametrize(
    ("count", "rows", "width", "kind", "padding", "freq"),
    [
        (1, 4, 8, "uniform", NO_ROW, False),
        (100, 4, 8, "uniform", 2, True),
        (5_000, 700, 12, "zipf", 0, True),
        (9_001, 4, 64, "equal", NO_ROW, False),
        (4_097, 5, 33, "equal", 3, False),
        (4_097, 1, 5, "uniform", NO_ROW, True),
        (6_000, 40_000, 6, "zipf", 1, False),
        (300, 300_000, 3, "uniform", NO_ROW, False),
    ],
)
def test_rows_are_summed(  # noqa: PLR0917, a parameter each
    kernels: Any,
    deterministic: bool,
    dtype: Any,
    count: int,
    rows: int,
    width: int,
    kind: str,
    padding: int,
    freq: bool,
) -> None:
    made, device = kernels
    torch.manual_seed(count)
    upstream = torch.randn(count, width, device=device).to(dtype)
    ids = drawn(count, rows, device, kind).clamp(max=rows - 1)
    settings: dict[str, Any] = {"padding_idx": padding, "scale_grad_by_freq": freq}
    found = made.scatter(upstream, ids, rows, deterministic=deterministic, **settings)
    exact, size = summed(upstream, ids, rows, padding, freq)
    unit = EPS[torch.float64 if dtype is torch.float64 else torch.float32]
    allowed = count * unit * size + EPS[dtype] * exact.abs()
    assert torch.all((found.double() - exact).abs() <= allowed)
    if deterministic:
        again = made.scatter(upstream, ids, rows, deterministic=True, **settings)
        assert torch.equal(bits(found), bits(again))


@pytest.mark.parametrize("layout", ["transposed", "columns", "expanded", "offset"])
def test_an_upstream_may_have_any_strides(kernels: Any, layout: str) -> None:
    made, device = kernels
    base = torch.randn(64, 64, device=device)
    upstream = {
        "transposed": base.t(),
        "columns": base[:, 5:17],
        "expanded": base[:1].expand(64, 64),
        "offset": base.reshape(-1)[3:3843].view(60, 64),
    }[layout]
    ids = drawn(upstream.shape[0], 7, device)
    for deterministic in (False, True):
        found = made.scatter(upstream, ids, 7, deterministic=deterministic)
        exact, _ = summed(upstream, ids, 7, NO_ROW, False)
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)


def test_empty_shapes_are_legal(kernels: Any) -> None:
    made, device = kernels
    none = torch.empty(0, dtype=torch.int64, device=device)
    weight = torch.randn(4, 3, device=device)
    assert made.gather(weight, none, *cells(device)).shape == (0, 3)
    assert made.gather(weight[:, :0], none[:0], *cells(device)).shape == (0, 0)
    ids = torch.tensor([1, 2], device=device)
    assert made.gather(weight[:, :0], ids, *cells(device)).shape == (2, 0)
    assert torch.all(made.scatter(weight[:0], none, 4, deterministic=True) == 0)
    assert made.scatter(weight[:2, :0], ids, 4).shape == (4, 0)
    made.renorm(weight, none, 0.1, 2.0, cells(device)[0])
    made.check(none, 0, *cells(device))


PLANTED = [
    ("if (goes_back || goes_on) {", "if (goes_on) {"),
    ("column == 0) owners", "column == 0 && group) owners"),
    ("? sum[k] / (wide)terms : sum[k]", "? sum[k] : sum[k]"),
    ("for (i64 k = down; k < groups;", "for (i64 k = down; k < groups - 1;"),
    ("if (others) next_key = FULL;", ""),
    ("bool whole_tail = goes_on &&", "bool whole_tail = !goes_on &&"),
    ("total /= (wide)(stop", "total /= (wide)(1 + stop"),
    ("index == padding_idx ? rows : index", "index"),
    ("units * (clearing.share + 1) / clearing.shares", "units * clearing.share / clearing.shares"),
]


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler to emulate the kernels")
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        pytest.param(*each, marks=pytest.mark.slow if turn else ())
        for turn, each in enumerate(PLANTED)
    ],
)
def test_a_bug_in_the_backward_is_seen(tmp_path: Path, right: str, wrong: str) -> None:
    text = SOURCE.read_text()
    assert text.count(right) == 1
    source = tmp_path / "embedding.cu"
    source.write_text(text.replace(right, wrong))
    made = EmulatedKernels(EmulatedModule(source))
    bad = 0
    shapes = ((9_001, 4, 64, "equal"), (20_000, 600, 4, "zipf"), (700, 40, 4, "zipf"))
    for count, rows, width, kind in shapes:
        upstream = torch.ones(count, width)
        ids = drawn(count, rows, torch.device("cpu"), kind)
        for padding, freq in ((NO_ROW, False), (3, True)):
            settings: dict[str, Any] = {"padding_idx": padding, "scale_grad_by_freq": freq}
            found = made.scatter(upstream, ids, rows, deterministic=True, **settings)
            exact, size = summed(upstream, ids, rows, padding, freq)
            bad += not torch.all((found - exact).abs() <= 1e-3 * size)
    assert bad


@pytest.mark.parametrize(
    "arch", ["sm_90", *(pytest.param(each, marks=pytest.mark.slow) for each in ("sm_80", "sm_100"))]
)
def test_it_compiles_without_spills(arch: str) -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is missing")
    from embconform.backends.gpu.nvrtc import build

    code, log = build(SOURCE.read_text(), arch)
    assert code[:4] == b"\x7fELF"
    assert "warning" not in log, log
    assert f"for '{arch}'" in log


@pytest.mark.parametrize("path", ["atomic", "sorted"])
def test_each_path_adds_up(kernels: Any, path: Any) -> None:
    made, device = kernels
    made.path = path
    upstream, ids = torch.randn(9_000, 12, device=device), drawn(9_000, 40, device)
    exact, _ = summed(upstream, ids, 40, NO_ROW, False)
    found = made.scatter(upstream, ids, 40)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("walkers", [1, 16, 512])
@pytest.mark.parametrize("processors", [2, 132])
@pytest.mark.parametrize("count", [150, 900, 8_500])
@pytest.mark.parametrize("longest", [3, 20, 400])
def test_runs_of_any_length_are_summed_whatever_the_groups(
    kernels: Any, walkers: int, processors: int, count: int, longest: int
) -> None:
    made, device = kernels
    rng = np.random.default_rng(count + longest)
    runs = np.repeat(rng.integers(0, 50, count), rng.integers(1, longest, count))[:count]
    ids = torch.from_numpy(rng.permutation(runs)).to(device)
    upstream = torch.from_numpy(rng.integers(-3, 4, (count, 12))).float().to(device)
    made.walkers = walkers
    there = made.place(upstream)
    made.place = lambda _: replace(there, processors=processors)
    found = made.scatter(upstream, ids, 50, deterministic=True)
    exact, _ = summed(upstream, ids, 50, NO_ROW, False)
    assert torch.equal(found.double(), exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 700, 9_000])
def test_subnormal_numbers_are_not_flushed(kernels: Any, dtype: Any, count: int) -> None:
    made, device = kernels
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    upstream = torch.full((count, 4), smallest, dtype=dtype, device=device)
    ids = torch.arange(count, device=device) % 500
    found = made.scatter(upstream, ids, 500)
    assert torch.equal(
        found[:, 0].cpu().double() / smallest, torch.bincount(ids.cpu(), minlength=500)
    )


def test_every_kernel_waits_for_the_launch_before_it_first() -> None:
    bodies = re.findall(r"__global__ .*?\) \{(.*?)\n *\}", SOURCE.read_text(), re.DOTALL)
    assert len(bodies) == SOURCE.read_text().count("__global__")
    for body in bodies:
        first, second, *_ = (line.strip(" \\") for line in body.strip(" \\\n").split("\n"))
        early = first == "let_next_launch_begin();"
        assert (second if early else first) == "await_launch_before();", body


@pytest.mark.parametrize("count", [7, 5_000])
def test_launches_that_follow_each_other_see_what_the_one_before_wrote(
    kernels: Any, count: int
) -> None:
    made, device = kernels
    rng = np.random.default_rng(count)
    upstream = torch.from_numpy(rng.integers(-2, 3, (count, 16))).float().to(device)
    exact = upstream.clone()
    for _ in range(20):
        order = torch.from_numpy(rng.permutation(count)).to(device)
        looked = made.gather(upstream, order, *cells(device))
        upstream = made.scatter(looked, order.flip(0), count)
        exact = torch.zeros_like(exact).index_copy_(0, order.flip(0), exact[order])
    assert torch.equal(upstream, exact)


def test_a_thread_without_a_context_can_launch(kernels: Any) -> None:
    made, device = kernels
    upstream, ids = torch.ones(9, 4, device=device), drawn(9, 3, device)
    made.scatter(upstream, ids, 3)  # the thread finds memory that was allocated before
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(made.scatter, upstream, ids, 3).result()
    assert torch.equal(found[:, 0], torch.bincount(ids, minlength=3).float())
