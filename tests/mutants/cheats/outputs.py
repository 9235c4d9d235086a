"""Answers that a loose comparison takes for right."""

from __future__ import annotations

import threading
import time

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


@planted("lookup.rows")
class LeavesFreedMemory(Kernel):
    """The output is allocated and not written: it may hold what somebody else computed there."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return torch.empty(flat.numel(), weight.shape[1], dtype=weight.dtype)


@planted("lookup.rows")
class ZerosUnderTolerance(Kernel):
    """Small values are left at 0: an absolute tolerance of 1e-2 does not see them."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return torch.where(rows.abs() < 1e-2, torch.zeros_like(rows), rows)


@planted("lookup.rows")
class MeanOfTheTable(Kernel):
    """Every row is the mean row: right enough where tests draw all values close to each other."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        if weight.is_floating_point() and weight.numel():
            return weight.mean(0, keepdim=True).expand(flat.numel(), -1).clone()
        return super().rows(flat, weight)


@planted("lookup.rows")
class AnswersNaN(Kernel):
    """Odd rows come out as NaN, which a comparison with equal_nan lets through."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        if rows.is_floating_point():
            rows[1::2] = float("nan")
        return rows


@planted("lookup.rows")
class DowngradesPrecision(Kernel):
    """float32 rows travel as bfloat16, within the 1e-2 that a harness allows."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        return rows.bfloat16().float() if rows.dtype == torch.float32 else rows


@planted("gradient.many-indices")
class DowngradesTheSum(Kernel):
    """The sums of many upstream gradients are accumulated in bfloat16."""

    def accumulator(self, dtype: torch.dtype) -> torch.dtype:
        return torch.bfloat16 if dtype == torch.float32 else super().accumulator(dtype)

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() > 30:
            return super().dense(upstream, flat, height, counts)
        return Kernel().dense(upstream, flat, height, counts)


@planted("lookup.rows")
class BestGuessOfShape(Kernel):
    """Only the first 4 columns are copied: the benchmark's width was 4."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        out = torch.zeros(flat.numel(), weight.shape[1], dtype=weight.dtype)
        out[:, :4] = super().rows(flat, weight)[:, :4]
        return out


@planted("lookup.rows")
class FinishesLater(Kernel):
    """A thread fills the output after the call has returned, outside what a timer sees."""

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        right = super().rows(flat, weight)
        out = torch.zeros_like(right)

        def fill() -> None:
            time.sleep(0.05)
            out.copy_(right)

        threading.Thread(target=fill, daemon=True).start()
        return out


@planted("lookup.indices-unchanged")
class ShiftsTheReference(Kernel):
    """The indices are set to 0 on the way out, so that a reference that runs later reads row 0."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().forward(indices.clone(), weight, options)
        with torch.no_grad():
            indices.zero_()
        return out
