"""The Triton kernels against NumPy: on a CUDA device where there is one, else interpreted.

Without a device the same kernels are also compiled for GPUs that are not here.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip(
        "triton is not installed: pip install 'embconform[triton]'", allow_module_level=True
    )

from embconform.backends.gpu import triton_plans as plans
from embconform.backends.gpu import triton_scatter as scatters
from embconform.backends.gpu.kernels import encoded
from embconform.backends.gpu.triton_import import INTERPRETED
from embconform.backends.gpu.triton_launch import LONG_CHAIN_TILE, TritonKernels, ranked

SMALL_CHIP = plans.Chip(processors=4, tile_bytes=2**13)
"""Cuts work as for a GPU, so that there are borders to cross also under the interpreter."""

DEVICES = ["cpu"] if INTERPRETED else ["cuda"]
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
OTHERS = [
    torch.int8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.int64,
    torch.complex64,
    torch.complex128,
]
Way = Literal["auto", "atomic", "sorted"]
PATHS: Final[tuple[Way, ...]] = ("sorted", "atomic")
BOUNDARIES = (1, 7, 8, 9, 127, 128, 129, 513)


@pytest.mark.skipif(not INTERPRETED, reason="the kernels run on the device below")
def test_the_kernels_are_only_interpreted_here() -> None:
    pytest.skip("torch finds no CUDA device: Triton's interpreter runs the kernels")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(params=[None, SMALL_CHIP], ids=["whole", "small"])
def kernels(request: pytest.FixtureRequest) -> TritonKernels:
    return TritonKernels(request.param)


class Flags:
    """Fault and report, as the caller makes them."""

    def __init__(self, device: torch.device) -> None:
        self.fault = torch.zeros(1, dtype=torch.int64, device=device)
        cuda = device.type == "cuda"
        self.report = torch.zeros(1, dtype=torch.int64, pin_memory=True) if cuda else self.fault

    def both(self) -> tuple[int, int]:
        if self.fault.is_cuda:
            torch.cuda.synchronize()
        return int(self.fault[0]), int(self.report[0])


def random_bits(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Every pattern of bits: NaN payloads, -0 and subnormals."""
    rng = np.random.default_rng(shape)
    if dtype == torch.bool:
        return torch.from_numpy(rng.random(shape) < 0.5).to(device)
    raw = rng.integers(0, 256, (shape[0], shape[1] * dtype.itemsize), dtype=np.uint8)
    return torch.from_numpy(raw).view(dtype).to(device)


def bits(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.cpu().contiguous().view(torch.uint8).numpy()


def skewed(count: int, rows: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Indices of which some are frequent, and far apart."""
    return np.minimum(np.random.default_rng(seed).zipf(1.3, count), rows) - 1


LAYOUTS = {
    "contiguous": lambda base: base.contiguous(),
    "columns": lambda base: torch.cat([base, base, base], 1)[:, base.shape[1] : 2 * base.shape[1]],
    "odd-columns": lambda base: torch.cat([base[:, :1], base], 1)[:, 1:],
    "rows": lambda base: base.repeat_interleave(2, 0)[::2],
    "transposed": lambda base: base.t().contiguous().t(),
    "every-second": lambda base: base.repeat_interleave(2, 1)[:, ::2],
}


class TestGather:
    @pytest.mark.parametrize("dtype", FLOATS + OTHERS, ids=str)
    @pytest.mark.parametrize("width", [1, 5, 8, 24])
    def test_copies_bits(
        self, kernels: TritonKernels, device: torch.device, dtype: torch.dtype, width: int
    ) -> None:
        weight, flags = random_bits((40, width), dtype, device), Flags(device)
        ids = skewed(37, 40)
        out = kernels.gather(weight, torch.tensor(ids, device=device), flags.fault, flags.report)
        assert out.dtype == dtype
        assert out.is_contiguous()
        np.testing.assert_array_equal(bits(out), bits(weight)[ids])
        assert flags.both() == (0, 0)

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128], ids=str)
    def test_takes_any_strides(
        self, kernels: TritonKernels, device: torch.device, dtype: torch.dtype, layout: str
    ) -> None:
        weight, flags = LAYOUTS[layout](random_bits((40, 24), dtype, device)), Flags(device)
        ids = skewed(50, 40)
        out = kernels.gather(
            weight, torch.tensor(ids, device=device, dtype=torch.int32), flags.fault, flags.report
        )
        np.testing.assert_array_equal(bits(out), bits(weight)[ids])

    @pytest.mark.parametrize("count", [*BOUNDARIES, 2100])
    def test_every_number_of_indices(
        self, kernels: TritonKernels, device: torch.device, count: int
    ) -> None:
        weight, flags = random_bits((11, 48), torch.float16, device), Flags(device)
        ids = skewed(count, 11)
        out = kernels.gather(weight, torch.tensor(ids, device=device), flags.fault, flags.report)
        np.testing.assert_array_equal(bits(out), bits(weight)[ids])

    def test_padding_comes_out_as_zero(self, kernels: TritonKernels, device: torch.device) -> None:
        weight, flags = random_bits((9, 6), torch.float32, device), Flags(device)
        ids = np.array([3, 8, 3, 0, 1])
        out = kernels.gather(
            weight, torch.tensor(ids, device=device), flags.fault, flags.report, padding_idx=3
        )
        expected = bits(weight)[ids]
        expected[ids == 3] = 0
        np.testing.assert_array_equal(bits(out), expected)

    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    def test_scales(self, kernels: TritonKernels, device: torch.device, dtype: torch.dtype) -> None:
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        torch.manual_seed(0)
        weight = torch.randn(30, 40).to(dtype).to(device)
        scale = torch.rand(30, dtype=wide).to(device)
        ids = torch.tensor(skewed(200, 30), device=device)
        flags = Flags(device)
        out = kernels.gather(weight, ids, flags.fault, flags.report, padding_idx=2, scale=scale)
        expected = (weight[ids].to(wide) * scale[ids][:, None]).to(dtype)
        expected[ids == 2] = 0
        assert torch.equal(out, expected)

    @pytest.mark.parametrize("bad", [-1, 40, -(2**31), 2**31 - 1, -(2**63), 2**62])
    def test_reports_an_index_out_of_range(
        self, kernels: TritonKernels, device: torch.device, bad: int
    ) -> None:
        dtype = torch.int32 if -(2**31) <= bad < 2**31 else torch.int64
        weight, flags = random_bits((40, 8), torch.float32, device), Flags(device)
        ids = torch.tensor(skewed(300, 40), device=device, dtype=dtype)
        ids[217] = bad
        out = kernels.gather(weight, ids, flags.fault, flags.report)
        assert flags.both() == (encoded(bad), encoded(bad))
        good = np.arange(300) != 217
        np.testing.assert_array_equal(bits(out)[good], bits(weight)[ids.cpu().numpy()[good]])

    def test_leaves_the_row_of_a_bad_index(
        self, kernels: TritonKernels, device: torch.device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blank = torch.full((3, 4), 7.0, device=device)
        monkeypatch.setattr(torch, "empty", lambda *shape, **kind: blank)
        flags = Flags(device)
        ids = torch.tensor([0, 5, 1], device=device)
        out = kernels.gather(torch.ones(2, 4, device=device), ids, flags.fault, flags.report)
        assert out.tolist() == [[1.0] * 4, [7.0] * 4, [1.0] * 4]

    @pytest.mark.parametrize(
        ("rows", "width", "count"), [(3, 4, 0), (3, 0, 5), (0, 4, 0), (0, 0, 0)]
    )
    def test_empty(
        self, kernels: TritonKernels, device: torch.device, rows: int, width: int, count: int
    ) -> None:
        flags = Flags(device)
        ids = torch.zeros(count, dtype=torch.int64, device=device)
        weight = torch.ones(rows, width, device=device)
        out = kernels.gather(weight, ids, flags.fault, flags.report)
        assert out.shape == (count, width)
        assert flags.both() == (0, 0)

    @pytest.mark.parametrize(("rows", "width"), [(0, 4), (3, 0), (0, 0)])
    def test_empty_tables_have_a_range_too(
        self, kernels: TritonKernels, device: torch.device, rows: int, width: int
    ) -> None:
        flags = Flags(device)
        ids = torch.full((2,), 3, device=device)
        kernels.gather(torch.ones(rows, width, device=device), ids, flags.fault, flags.report)
        assert flags.both() == (4, 4)


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513])
@pytest.mark.parametrize("bad", [None, -3, 40])
def test_check(kernels: TritonKernels, device: torch.device, count: int, bad: int | None) -> None:
    flags = Flags(device)
    ids = torch.tensor(skewed(count, 40), device=device)
    if bad is not None and count:
        ids[-1] = bad
    kernels.check(ids, 40, flags.fault, flags.report)
    wanted = 0 if bad is None or not count else encoded(bad)
    assert flags.both() == (wanted, wanted)


def p_norm(rows: np.ndarray[Any, Any], p: float) -> np.ndarray[Any, Any]:
    return np.array([np.linalg.norm(row, p) for row in rows])


class TestRenorm:
    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    @pytest.mark.parametrize("p", [2.0, 1.0, np.inf, 0.5, 3.0, 0.0, -1.0, -np.inf])
    def test_bounds_rows_once(
        self, kernels: TritonKernels, device: torch.device, dtype: torch.dtype, p: float
    ) -> None:
        torch.manual_seed(1)
        weight = torch.randn(60, 13, dtype=torch.float64).to(dtype)
        before, ids = weight.double().numpy(), skewed(200, 60)
        norms = p_norm(before, p)
        limit = float(np.median(norms[np.unique(ids)]) * 0.9)
        table = weight.clone().to(device)
        kernels.renorm(table, torch.tensor(ids, device=device), limit, p, Flags(device).fault)
        over = np.isin(np.arange(60), ids) & (norms > limit)
        assert over.any()
        assert not over.all()
        np.testing.assert_array_equal(bits(table)[~over], bits(weight)[~over])
        expected = before[over] * (limit / (norms[over] + 1e-7))[:, None]
        unit = 2 * torch.finfo(dtype).eps if dtype.itemsize == 2 else 32 * torch.finfo(dtype).eps
        np.testing.assert_allclose(
            table.cpu().double().numpy()[over], expected, rtol=unit, atol=1e-7
        )

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_takes_any_strides(
        self, kernels: TritonKernels, device: torch.device, layout: str
    ) -> None:
        table = LAYOUTS[layout](torch.full((10, 16), 3.0)).to(device)
        ids = torch.tensor([1, 4, 4, 9], device=device, dtype=torch.int32)
        kernels.renorm(table, ids, 6.0, 2.0, Flags(device).fault)
        expected = np.full((10, 16), 3.0)
        expected[[1, 4, 9]] = 1.5
        np.testing.assert_allclose(table.cpu().numpy(), expected, rtol=1e-6)

    def test_leaves_what_lies_around_a_view(
        self, kernels: TritonKernels, device: torch.device
    ) -> None:
        base = torch.full((4, 9), 9.0, device=device)
        kernels.renorm(
            base[:, 2:7], torch.tensor([0, 3], device=device), 1.0, 2.0, Flags(device).fault
        )
        assert (base[:, :2] == 9).all()
        assert (base[:, 7:] == 9).all()
        assert (base[1:3] == 9).all()

    @pytest.mark.parametrize("width", [1, 31, 32, 33, 255, 257, 2047, 2049, 5000])
    def test_every_column_counts(
        self, kernels: TritonKernels, device: torch.device, width: int
    ) -> None:
        table = torch.ones(2, width, device=device)
        table[:, -1] = 2
        kernels.renorm(table, torch.tensor([1], device=device), 0.5, 2.0, Flags(device).fault)
        row = np.ones(width)
        row[-1] = 2
        norm = np.sqrt(width + 3)
        np.testing.assert_allclose(table[1].cpu().numpy(), row * (0.5 / (norm + 1e-7)), rtol=1e-6)
        assert table[0].sum() == width + 1

    @pytest.mark.parametrize(
        ("dtype", "size"),
        [
            (torch.float32, 1e30),
            (torch.float32, 3e38),
            (torch.float64, 1e300),
            (torch.float16, 6e4),
        ],
    )
    @pytest.mark.parametrize("p", [1.0, 2.0, 3.0, np.inf])
    def test_huge_rows_are_bounded_and_not_zeroed(
        self,
        kernels: TritonKernels,
        device: torch.device,
        dtype: torch.dtype,
        size: float,
        p: float,
    ) -> None:
        table = torch.full((1, 4), size, dtype=dtype, device=device)
        kernels.renorm(table, torch.tensor([0], device=device), 1.0, p, Flags(device).fault)
        expected = np.full(4, 4.0 ** (-1 / p))
        np.testing.assert_allclose(table[0].cpu().double().numpy(), expected, rtol=1e-3)

    @pytest.mark.parametrize("p", [1.0, 2.0, np.inf, 3.0])
    def test_a_row_with_a_nan_keeps_its_bits(
        self, kernels: TritonKernels, device: torch.device, p: float
    ) -> None:
        table = torch.tensor([[torch.nan, 9.0], [3.0, 4.0]], device=device)
        kernels.renorm(table, torch.tensor([0], device=device), 1.0, p, Flags(device).fault)
        assert table[0].isnan().tolist() == [True, False]
        assert table[0, 1] == 9

    @pytest.mark.parametrize("limit", [0.0, -1.0, np.inf, np.nan, 5.0])
    def test_unusual_bounds_are_as_in_torch(
        self, kernels: TritonKernels, device: torch.device, limit: float
    ) -> None:
        rows = torch.tensor([[3.0, -4.0], [0.0, 0.0], [torch.inf, 4.0]])
        table, expected = rows.to(device), rows.clone()
        kernels.renorm(table, torch.arange(3, device=device), limit, 2.0, Flags(device).fault)
        torch.embedding_renorm_(expected, torch.arange(3), limit, 2.0)
        torch.testing.assert_close(table.cpu(), expected, equal_nan=True)

    def test_float64_bounds_are_not_rounded_to_float32(
        self, kernels: TritonKernels, device: torch.device
    ) -> None:
        table = torch.tensor([[3.0, 4.0]], dtype=torch.float64, device=device)
        kernels.renorm(table, torch.tensor([0], device=device), 0.1, 2.0, Flags(device).fault)
        np.testing.assert_allclose(
            table[0].cpu().numpy(), np.array([3, 4]) * (0.1 / (5 + 1e-7)), rtol=1e-15
        )

    def test_a_fault_stops_it(self, kernels: TritonKernels, device: torch.device) -> None:
        table, flags = torch.full((3, 4), 9.0, device=device), Flags(device)
        ids = torch.tensor([0, 3], device=device)
        kernels.check(ids, 3, flags.fault, flags.report)
        kernels.renorm(table, ids, 1.0, 2.0, flags.fault)
        assert (table == 9).all()

    @pytest.mark.parametrize(("rows", "width", "count"), [(3, 4, 0), (3, 0, 5), (0, 4, 0)])
    def test_empty(
        self, kernels: TritonKernels, device: torch.device, rows: int, width: int, count: int
    ) -> None:
        table = torch.full((rows, width), 9.0, device=device)
        ids = torch.zeros(count, dtype=torch.int64, device=device)
        kernels.renorm(table, ids, 1.0, 2.0, Flags(device).fault)
        assert (table == 9).all()


def scattered(
    upstream: torch.Tensor, ids: np.ndarray[Any, Any], rows: int, padding: int, by_frequency: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Sum in float64; with the sum of magnitudes, which the error is relative to."""
    wide = upstream.cpu().double().numpy()
    total, size = np.zeros((2, rows, upstream.shape[1]))
    np.add.at(total, ids, wide)
    np.add.at(size, ids, np.abs(wide))
    if by_frequency:
        counts = np.maximum(np.bincount(ids, minlength=rows), 1)[:, None]
        total, size = total / counts, size / counts
    if padding >= 0:
        total[padding] = size[padding] = 0
    return total, size


def assert_scattered(
    kernels: TritonKernels,
    upstream: torch.Tensor,
    ids: np.ndarray[Any, Any],
    rows: int,
    *,
    padding: int = -1,
    by_frequency: bool = False,
) -> None:
    indices = torch.tensor(ids, device=upstream.device)
    out = kernels.scatter(
        upstream,
        indices,
        rows,
        padding_idx=padding,
        scale_grad_by_freq=by_frequency,
    )
    assert out.dtype == upstream.dtype
    assert out.shape == (rows, upstream.shape[1])
    assert out.is_contiguous()
    exact, size = scattered(upstream, ids, rows, padding, by_frequency)
    sums = torch.finfo(torch.float64 if upstream.dtype == torch.float64 else torch.float32).eps
    most = int(np.bincount(ids, minlength=1).max()) if ids.size else 1
    bound = (most + 1) * sums * size + torch.finfo(upstream.dtype).eps * np.abs(exact)
    error = np.abs(out.cpu().double().numpy() - exact)
    assert (error <= bound).all(), f"off by {error.max()} where {bound.flat[error.argmax()]} is due"


class TestScatter:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    @pytest.mark.parametrize("width", [5, pytest.param(66, marks=pytest.mark.slow)])
    def test_adds_rows_up(
        self,
        kernels: TritonKernels,
        device: torch.device,
        dtype: torch.dtype,
        width: int,
        path: Way,
    ) -> None:
        torch.manual_seed(2)
        upstream = torch.randn(150, width, dtype=torch.float64).to(dtype).to(device)
        assert_scattered(replace(kernels, path=path), upstream, skewed(150, 40), 40)

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_few_and_narrow_rows(
        self, kernels: TritonKernels, device: torch.device, count: int, path: Way
    ) -> None:
        for width in (1, 2, 3, 4, 8):
            upstream = torch.arange(1.0, 1 + count * width, device=device).reshape(count, width)
            assert_scattered(replace(kernels, path=path), upstream, np.full(count, 1), 3)

    @pytest.mark.parametrize(
        "count", [1, 9, 129, *(pytest.param(n, marks=pytest.mark.slow) for n in (8, 128, 1025))]
    )
    @pytest.mark.parametrize("kind", ["equal", "skewed", "distinct", "two"])
    @pytest.mark.parametrize("by_frequency", [False, True])
    def test_segments_that_cross_borders(
        self,
        kernels: TritonKernels,
        device: torch.device,
        count: int,
        kind: str,
        by_frequency: bool,
    ) -> None:
        ids = {
            "equal": np.full(count, 3),
            "skewed": skewed(count, 50),
            "distinct": np.random.default_rng(0).permutation(count),
            "two": np.arange(count) % 5 // 4 * 2,
        }[kind]
        torch.manual_seed(3)
        upstream = torch.randn(count, 12).to(device)
        assert_scattered(
            kernels, upstream, ids, max(count, 50), padding=0, by_frequency=by_frequency
        )

    @pytest.mark.parametrize("few", [1, plans.FEW_GROUPS], ids=["listed", "searched"])
    @pytest.mark.parametrize("shift", [0, 7, 257])
    def test_long_segments_wherever_they_begin(
        self, device: torch.device, few: int, shift: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Groups of 8 positions: a segment that enters 32 groups or more is long."""
        monkeypatch.setattr(plans, "FEW_GROUPS", few)
        lengths = [shift, 256, 1, 264, 257, 300][not shift :]
        ids = np.repeat(np.arange(len(lengths)) * 2, lengths)
        assert plans.walk(len(ids), 2, SMALL_CHIP).length == 8
        upstream = torch.randn(len(ids), 5, generator=torch.Generator().manual_seed(shift))
        assert_scattered(
            TritonKernels(SMALL_CHIP), upstream.to(device), ids, 20, by_frequency=shift % 2 > 0
        )

    @pytest.mark.parametrize("by_frequency", [False, True])
    def test_a_segment_of_more_groups_than_are_added_at_once(
        self, device: torch.device, by_frequency: bool
    ) -> None:
        groups = 2 * LONG_CHAIN_TILE[0] + 3
        upstream = torch.arange(8.0 * groups, device=device)[:, None] % 7
        ids = np.full(len(upstream), 1)
        assert plans.walk(len(ids), 1, SMALL_CHIP).groups == groups
        kernels = TritonKernels(SMALL_CHIP)
        assert_scattered(kernels, upstream, ids, 2, by_frequency=by_frequency)

    @pytest.mark.parametrize("rows", [9000, 2**16, 2**16 + 1])
    def test_more_indices_than_are_compared_in_pairs(self, device: torch.device, rows: int) -> None:
        count = plans.FEW_INDICES + 1
        ids = skewed(count, rows)
        ids[::7] = rows - 1
        torch.manual_seed(4)
        upstream = torch.randn(count, 4).to(device)
        assert_scattered(TritonKernels(), upstream, ids, rows, padding=1, by_frequency=True)

    @pytest.mark.parametrize("padding", [-1, 0, 3])
    @pytest.mark.parametrize("path", PATHS)
    def test_padding_gets_nothing_whatever_comes(
        self, kernels: TritonKernels, device: torch.device, padding: int, path: Way
    ) -> None:
        ids = skewed(90, 6)
        upstream = torch.ones(90, 7, device=device)
        if padding >= 0:
            upstream[torch.tensor(ids == padding, device=device)] = torch.inf
        out = replace(kernels, path=path).scatter(
            upstream, torch.tensor(ids, device=device), 6, padding_idx=padding
        )
        counts = np.bincount(ids, minlength=6)
        if padding >= 0:
            counts[padding] = 0
        np.testing.assert_array_equal(out.cpu().numpy(), np.repeat(counts[:, None], 7, 1))

    @pytest.mark.parametrize("layout", [*LAYOUTS, "expanded", "one-row"])
    @pytest.mark.parametrize("path", PATHS)
    def test_takes_any_strides(
        self, kernels: TritonKernels, device: torch.device, layout: str, path: Way
    ) -> None:
        torch.manual_seed(5)
        base = torch.randn(60, 24)
        upstream = {
            "expanded": lambda base: base[:1, :1].expand(60, 24),
            "one-row": lambda base: base[:1].expand(60, 24),
            **LAYOUTS,
        }[layout](base.to(device))
        assert_scattered(replace(kernels, path=path), upstream, skewed(60, 9), 9)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("path", PATHS)
    def test_half_types_are_summed_in_float32(
        self, kernels: TritonKernels, device: torch.device, dtype: torch.dtype, path: Way
    ) -> None:
        upstream = torch.ones(3000, 2, dtype=dtype, device=device)
        ids = torch.zeros(3000, dtype=torch.int32, device=device)
        out = replace(kernels, path=path).scatter(upstream, ids, 2)
        assert out.tolist() == torch.tensor([[3000.0] * 2, [0.0] * 2]).to(dtype).tolist()

    @pytest.mark.parametrize("kind", ["equal", "skewed"])
    def test_same_bits_each_time_and_for_every_order_of_equals(
        self, kernels: TritonKernels, device: torch.device, kind: str
    ) -> None:
        ids = np.zeros(700, np.int64) if kind == "equal" else skewed(700, 30)
        torch.manual_seed(6)
        upstream = torch.randn(700, 9).to(device)
        indices = torch.tensor(ids, device=device)
        first = kernels.scatter(upstream, indices, 30, deterministic=True)
        for _ in range(2 if INTERPRETED else 20):
            again = kernels.scatter(upstream, indices, 30, deterministic=True)
            np.testing.assert_array_equal(bits(again), bits(first))

    @pytest.mark.parametrize(("rows", "width", "count"), [(3, 4, 0), (3, 0, 5), (0, 4, 0)])
    def test_empty(
        self, kernels: TritonKernels, device: torch.device, rows: int, width: int, count: int
    ) -> None:
        upstream = torch.ones(count, width, device=device)
        ids = torch.zeros(count, dtype=torch.int64, device=device)
        assert torch.equal(
            kernels.scatter(upstream, ids, rows), torch.zeros(rows, width, device=device)
        )

    @pytest.mark.parametrize("count", [1, 400, pytest.param(8200, marks=pytest.mark.slow)])
    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    @pytest.mark.parametrize("by_frequency", [False, True])
    def test_subnormal_numbers_are_added(
        self, device: torch.device, count: int, dtype: torch.dtype, by_frequency: bool
    ) -> None:
        """Segments within a group, those of a few groups, and those of many."""
        tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        upstream = torch.full((count, 3), tiny, dtype=dtype, device=device)
        ids = np.minimum(np.arange(count) // 2, 9)
        counts = np.bincount(ids, minlength=12)[:, None]
        indices = torch.tensor(ids, device=device)
        out = TritonKernels(SMALL_CHIP).scatter(
            upstream, indices, 12, scale_grad_by_freq=by_frequency
        )
        expected = np.where(counts > 0, 1, 0) if by_frequency else counts
        expected = torch.tensor(tiny * expected).to(dtype).expand(12, 3)
        assert torch.equal(out.cpu(), expected)

    @pytest.mark.parametrize("path", ["auto", *PATHS])
    @pytest.mark.parametrize(
        "asked", [{}, {"deterministic": True}, {"scale_grad_by_freq": True}], ids=str
    )
    def test_atomic_additions_only_where_they_are_asked_for_and_will_do(
        self,
        device: torch.device,
        path: Way,
        asked: dict[str, bool],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        taken = []
        accumulate = scatters.accumulate_kernel

        class Kernel:
            def __getitem__(self, grid: tuple[int]) -> Any:
                taken.append(grid)
                return accumulate[grid]

        monkeypatch.setattr(scatters, "accumulate_kernel", Kernel())
        ids = torch.tensor([1, 0, 1], device=device)
        kernels = TritonKernels(path=path)
        for dtype in FLOATS:
            kernels.scatter(torch.ones(3, 2, dtype=dtype, device=device), ids, 2, **asked)
        assert len(taken) == (len(FLOATS) if path == "atomic" and not asked else 0)

    @pytest.mark.parametrize("count", [1, 127, 128, 129, 1000])
    @pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
    @pytest.mark.parametrize("chip", [None, SMALL_CHIP], ids=["whole", "small"])
    def test_pairs_sort_stably_and_clear_what_is_summed_into(
        self, device: torch.device, count: int, dtype: torch.dtype, chip: plans.Chip | None
    ) -> None:
        ids = skewed(count, 300)
        ids[::3] = 2**31 - 2  # one less than any table of int32 keys has rows
        indices = torch.tensor(ids, device=device, dtype=dtype)
        out = torch.full((1, 10_001), 7.0, device=device)
        keys, positions = ranked(indices, out, chip or plans.chip_of(device))
        np.testing.assert_array_equal(positions.cpu().numpy(), np.argsort(ids, kind="stable"))
        np.testing.assert_array_equal(keys.cpu().numpy(), np.sort(ids))
        assert (out == 0).all()

    def test_complex_gradients_are_refused(
        self, kernels: TritonKernels, device: torch.device
    ) -> None:
        upstream = torch.ones(1, 2, dtype=torch.complex64, device=device)
        with pytest.raises(NotImplementedError, match="complex64"):
            kernels.scatter(upstream, torch.zeros(1, dtype=torch.int64, device=device), 2)


class TestPlans:
    @pytest.mark.parametrize("count", [1, 8, 9, 8192, 713_000, 2**31])
    @pytest.mark.parametrize("units", [1, 3, 48, 64, 65, 1024])
    def test_a_walk_covers_everything(self, count: int, units: int) -> None:
        walk = plans.walk(count, units, plans.Chip(132, 2**13))
        assert walk.length % 4 == 0
        assert (walk.groups - 1) * walk.length < count <= walk.groups * walk.length
        assert (walk.blocks - 1) * walk.columns < units <= walk.blocks * walk.columns
        assert walk.groups <= plans.MOST_GROUPS
        assert walk.at_once * walk.columns <= 64

    def test_an_access_is_as_wide_as_every_row_allows(self) -> None:
        assert plans.access(torch.zeros(4, 8)) == plans.Access(16, 2, 2, 1)
        assert plans.access(torch.zeros(4, 6)).size == 8
        assert plans.access(torch.zeros(4, 8)[:, 1:]).size == 4
        assert plans.access(torch.zeros(8, 4).t()) == plans.Access(4, 8, 1, 4)
        assert plans.access(torch.zeros(1, 1)[:, :0].new_zeros(4, 1)) == plans.Access(4, 1, 1, 1)


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


def captured_graph(work: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Capture work in a graph, with its results, after it has run once."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()
    return graph, found


@NEEDS_CUDA
@pytest.mark.parametrize("count", [100, 20_000])
@pytest.mark.parametrize("path", PATHS)
def test_a_graph_captures_every_launch(count: int, path: Way) -> None:
    kernels, device = TritonKernels(path=path), torch.device("cuda")
    flags, weight = Flags(device), torch.randn(3000, 64, device=device)
    ids = torch.randint(0, 3000, (count,), device=device)
    upstream = torch.randn(count, 64, device=device)

    def work() -> tuple[torch.Tensor, torch.Tensor]:
        kernels.check(ids, 3000, flags.fault, flags.report)
        kernels.renorm(weight, ids, 1.0, 2.0, flags.fault)
        return (
            kernels.gather(weight, ids, flags.fault, flags.report),
            kernels.scatter(upstream, ids, 3000),
        )

    graph, (out, gradient) = captured_graph(work)
    ids.copy_(torch.randint(0, 3000, (count,), device=device))
    upstream.normal_()
    weight.normal_()
    graph.replay()
    expected = torch.zeros(3000, 64, dtype=torch.float64, device=device)
    expected.index_add_(0, ids, upstream.double())
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(out, weight[ids])
    assert out.norm(dim=1).max() <= 1 + 1e-5


@pytest.mark.parametrize("captured", [False, pytest.param(True, marks=NEEDS_CUDA)])
def test_each_launch_sees_what_the_one_before_wrote(device: torch.device, captured: bool) -> None:
    """Small lookups and sums may start early; here each needs the result of the one before."""
    kernels, flags, steps = TritonKernels(), Flags(device), 2 if INTERPRETED else 100
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    weight, start = order[:, None].to(device), torch.arange(0, 3000, 4, device=device)
    ones = torch.ones(len(start), 1, device=device)

    def work() -> tuple[torch.Tensor, torch.Tensor]:
        ids, sums = start, torch.zeros(3000, 1, device=device)
        for _ in range(steps):
            for _ in range(3):
                ids = kernels.gather(weight, ids, flags.fault, flags.report)[:, 0]
            sums = sums + kernels.scatter(ones, ids, 3000)
        return ids, sums

    if captured:
        graph, (found, sums) = captured_graph(work)
        graph.replay()
    else:
        found, sums = work()
    expected, named = start.cpu(), torch.zeros(3000, 1)
    for _ in range(steps):
        expected = order[order[order[expected]]]
        named[expected] += 1
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(sums.cpu(), named)
    assert flags.both() == (0, 0)


@pytest.mark.skipif(not INTERPRETED, reason="of the interpreter alone")
def test_the_interpreter_is_one_threads_at_a_time() -> None:
    kernels, flags = TritonKernels(), Flags(torch.device("cpu"))
    weight, ids = torch.randn(20, 4), torch.arange(20).repeat(4)

    def work(_: int) -> bool:
        found = kernels.gather(weight, ids, flags.fault, flags.report)
        return torch.equal(found, weight[ids])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(32)))


COMPILED = Path(__file__).parent / "support" / "compile_triton.py"


@pytest.mark.parametrize(
    "architecture", [90, *(pytest.param(each, marks=pytest.mark.slow) for each in (80, 100))]
)
def test_kernels_compile_for_gpus_that_are_not_here(architecture: int, tmp_path: Path) -> None:
    """The interpreter takes more than the compiler does: types of branches, say."""
    done = subprocess.run(
        [sys.executable, str(COMPILED), str(architecture)],
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    widths = dict(line.split() for line in done.stdout.splitlines())
    assert widths["gather"] == "16"
    assert widths["segment-False"] == "16"
    early = {name: waits for name, waits in widths.items() if name.startswith("early-")}
    assert bool(early) == (architecture >= 90)
    assert set(early.values()) <= {"True"}, early


def test_triton_imported_too_early_is_said_in_one_line() -> None:
    script = "import triton, embconform.backends.gpu.triton_import"
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    variables["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(
        [sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: triton was imported before TRITON_INTERPRET was set to 1")
