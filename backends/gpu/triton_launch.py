"""The kernels of :mod:`triton_kernels` and :mod:`triton_scatter` as an embedding needs them."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch

from embconform.backends.gpu import triton_kernels as kernels
from embconform.backends.gpu import triton_plans as plans
from embconform.backends.gpu import triton_scatter as scatters
from embconform.backends.gpu.kernels import NO_ROW
from embconform.backends.gpu.triton_import import INTERPRETED, LAUNCHES_EARLY, tl

FLOATS: Final = {
    torch.float32: tl.float32,
    torch.float64: tl.float64,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}
WORDS: Final = {1: (torch.int8, tl.int8), 2: (torch.int16, tl.int16), 4: (torch.int32, tl.int32)}
WIDE: Final = (torch.int64, tl.int64)
RANGES: Final = {  # beyond which a power of two shrinks numbers, that power, the smallest normal
    tl.float32: (2.0**50, 2.0**-90, 2.0**-126),
    tl.float64: (2.0**450, 2.0**-600, 2.0**-1022),
}
RENORM_PROGRAMS: Final = 16  # a processor
LONG_PROGRAMS: Final = 4  # a processor
CHAIN_COLUMNS: Final = 256
FEW_CHAIN_COLUMNS: Final = 1024  # by four warps, not one
CHAIN_ROWS: Final = 8
LONG_CHAIN_TILE: Final = (512, 16)
FEW_LONG_CHAIN_TILE: Final = (128, 16)  # in fewer registers, since most programs have no chain
RANK_TILE: Final = (16, 128)  # of 8,192 indices, four programs a processor of an H100
_INTERPRETER: Final = threading.Lock()


@dataclass(frozen=True)
class TritonKernels:
    """Kernels in Triton: see :class:`embconform.backends.gpu.kernels.Kernels`.

    Tensors lie on a CUDA device, or on the CPU where Triton's interpreter runs
    (:mod:`triton_import`). Every launch can be captured in a CUDA graph.

    Parameters
    ----------
    chip : Chip, optional
        What launches are sized for; the tensors' own device by default.
    path : str
        How a gradient adds: ``sorted``, or ``atomic`` wherever neither counts nor the same bits
        each time are asked for. ``auto`` is sorted: an atomic addition of float32 to global memory
        takes subnormal numbers for 0.
    """

    chip: plans.Chip | None = None
    path: Literal["auto", "atomic", "sorted"] = "auto"

    def check(
        self, indices: torch.Tensor, rows: int, fault: torch.Tensor, report: torch.Tensor
    ) -> None:
        """Write an index outside 0..rows-1, encoded, to `fault` and `report`."""
        count = len(indices)
        if count == 0:
            return
        ids = plans.indices_per_program(count, self._chip(indices))
        with _launching(indices):
            kernels.check_kernel[(_programs(count, ids),)](
                indices, fault, report, count, rows, IDS=ids
            )

    def renorm(
        self,
        weight: torch.Tensor,
        indices: torch.Tensor,
        max_norm: float,
        norm_type: float,
        fault: torch.Tensor,
    ) -> None:
        """Scale each looked-up row whose p-norm is above `max_norm`, in place, once.

        Raises
        ------
        NotImplementedError
            For tables that are not float16, bfloat16, float32 or float64.
        """
        count, (rows, width) = len(indices), weight.shape
        accumulator = _accumulator(weight.dtype, "max_norm")
        if count == 0 or rows == 0 or width == 0:
            return
        cut = plans.access(weight)
        lanes = cut.size // weight.element_size()
        chip = self._chip(weight)
        tile = chip.tile_bytes // 4
        block = min(plans.power_of_two(width), tile)
        held = min(tile // block, plans.power_of_two(count))
        huge, shrink, smallest_normal = RANGES[accumulator]
        claims = torch.zeros(rows, dtype=torch.int32, device=weight.device)
        distinct = torch.empty_like(indices)
        found = torch.zeros(1, dtype=torch.int64, device=weight.device)
        most = RENORM_PROGRAMS * chip.processors
        ids = plans.indices_per_program(count, chip)
        with _launching(weight):
            kernels.claim_kernel[(_programs(count, ids),)](
                indices, fault, claims, distinct, found, count, rows, IDS=ids
            )
            kernels.renorm_kernel[(min(most, _programs(min(count, rows), held)),)](
                weight,
                distinct,
                found,
                _bits(max_norm),
                _bits(norm_type),
                cut.units,
                cut.row_stride,
                cut.unit_stride,
                KIND=_kind(norm_type),
                ACCUMULATOR=accumulator,
                HUGE=huge,
                SHRINK=shrink,
                SMALLEST_NORMAL=smallest_normal,
                LANES=lanes,
                ROWS=held,
                BLOCK=block,
                WHOLE=width <= block,
            )

    def gather(
        self,
        weight: torch.Tensor,
        indices: torch.Tensor,
        fault: torch.Tensor,
        report: torch.Tensor,
        *,
        padding_idx: int = NO_ROW,
        scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Copy rows, bit for bit, or scaled: shape (N, D), contiguous, of `weight`'s dtype.

        Raises
        ------
        NotImplementedError
            With `scale`, for tables that are not float16, bfloat16, float32 or float64.
        """
        count, (rows, width) = len(indices), weight.shape
        out = torch.empty(count, width, dtype=weight.dtype, device=weight.device)
        if out.numel() == 0:
            self.check(indices, rows, fault, report)
            return out
        cut = plans.access(weight)
        if scale is None:
            words, word = WORDS.get(min(cut.size, 4), WIDE)
            source, target, accumulator = _as_integers(weight), _as_integers(out), None
            lanes = cut.size // words.itemsize
        else:
            source, target, accumulator = weight, out, _accumulator(weight.dtype, "a scale")
            word, lanes = FLOATS[weight.dtype], cut.size // weight.element_size()
        total = count * cut.units
        chip = self._chip(weight)
        units = plans.units_per_program(total, cut.size, chip)
        early = total * cut.size <= plans.EARLY_BYTES
        with _launching(weight):
            kernels.gather_kernel[(_programs(total, units),)](
                source,
                indices,
                scale if scale is not None else fault,
                target,
                fault,
                report,
                count,
                rows,
                cut.units,
                cut.row_stride,
                cut.unit_stride,
                padding_idx,
                WORD=word,
                LANES=lanes,
                UNITS=units,
                OFFSET=tl.int32 if total < 2**31 - units else tl.int64,
                ACCUMULATOR=accumulator,
                **_turn(early, chip),
            )
        return out

    def scatter(
        self,
        upstream: torch.Tensor,
        indices: torch.Tensor,
        rows: int,
        *,
        padding_idx: int = NO_ROW,
        scale_grad_by_freq: bool = False,
        deterministic: bool = False,
    ) -> torch.Tensor:
        """Sum upstream rows by index: shape (rows, D), contiguous, of `upstream`'s dtype.

        The sums are the same each time unless `path` is ``atomic`` and `deterministic` False.

        Raises
        ------
        NotImplementedError
            For gradients that are not float16, bfloat16, float32 or float64.
        """
        _accumulator(upstream.dtype, "the gradient")
        count, width = upstream.shape
        if count == 0 or rows == 0 or width == 0:
            return torch.zeros(rows, width, dtype=upstream.dtype, device=upstream.device)
        if self.path == "atomic" and not deterministic and not scale_grad_by_freq:
            return self._scatter_atomic(upstream, indices, rows, padding_idx)
        return self._scatter_sorted(upstream, indices, rows, padding_idx, scale_grad_by_freq)

    def _scatter_atomic(
        self, upstream: torch.Tensor, indices: torch.Tensor, rows: int, padding_idx: int
    ) -> torch.Tensor:
        count, width = upstream.shape
        total = torch.zeros(rows, width, dtype=_sum_dtype(upstream.dtype), device=upstream.device)
        cut = plans.access(upstream)
        units = plans.units_per_program(count * cut.units, cut.size, self._chip(upstream))
        with _launching(upstream):
            scatters.accumulate_kernel[(_programs(count * cut.units, units),)](
                upstream,
                indices,
                total,
                count,
                cut.units,
                cut.row_stride,
                cut.unit_stride,
                padding_idx,
                LANES=cut.size // upstream.element_size(),
                UNITS=units,
            )
        return total.to(upstream.dtype)

    def _scatter_sorted(
        self,
        upstream: torch.Tensor,
        indices: torch.Tensor,
        rows: int,
        padding_idx: int,
        scale_grad_by_freq: bool,
    ) -> torch.Tensor:
        count, width = upstream.shape
        device = upstream.device
        chip = self._chip(upstream)
        out = torch.empty(rows, width, dtype=upstream.dtype, device=device)
        if count <= plans.FEW_INDICES:
            keys, positions, offset = *ranked(indices, out, chip), 0
        else:
            keys, positions, offset = _sorted(indices, rows)
            out.zero_()
        cut = plans.access(upstream)
        walk = plans.walk(count, cut.units, chip)
        partial = torch.empty(
            2 * walk.groups, width, dtype=_sum_dtype(upstream.dtype), device=device
        )
        numbers = torch.empty(2 * walk.groups, dtype=torch.int32, device=device)
        found = torch.empty(1, dtype=torch.int32, device=device)
        common: dict[str, Any] = {
            "KEY_OFFSET": offset,
            "BY_FREQUENCY": scale_grad_by_freq,
            **_turn(count <= plans.FEW_INDICES, chip),
        }
        with _launching(upstream):
            scatters.segment_kernel[(_programs(walk.groups, walk.at_once) * walk.blocks,)](
                upstream,
                keys,
                positions,
                out,
                partial,
                numbers,
                found,
                count,
                walk.groups,
                walk.length,
                walk.blocks,
                cut.units,
                cut.row_stride,
                cut.unit_stride,
                padding_idx,
                INDEX=tl.int32 if max(count, rows) < 2**30 else tl.int64,
                LANES=cut.size // upstream.element_size(),
                GROUPS=walk.at_once,
                COLUMNS=walk.columns,
                num_warps=1,
                **common,
            )
            sums = (keys, partial, numbers, out)
            if walk.groups > plans.FEW_GROUPS:
                _add_many(sums, found, count, walk, common, most=LONG_PROGRAMS * chip.processors)
            elif walk.groups > 1:
                _add_few(sums, count, walk, common)
        return out

    def _chip(self, tensor: torch.Tensor) -> plans.Chip:
        return self.chip or plans.chip_of(tensor.device)


@contextmanager
def _launching(tensor: torch.Tensor) -> Iterator[None]:
    """Make the tensor's device the current one.

    The interpreter puts its own functions into Triton's modules while it runs: one thread at a
    time. NumPy, in which it runs kernels, is silenced.
    """
    if INTERPRETED:
        with _INTERPRETER, np.errstate(all="ignore"):
            yield
    elif tensor.is_cuda:
        with torch.cuda.device(tensor.device):
            yield
    else:
        yield


def _programs(count: int, each: int) -> int:
    return -(-count // each)


def _turn(early: bool, chip: plans.Chip) -> dict[str, bool]:
    """Say how a kernel is launched that can start while the one ahead of it still runs."""
    if early and chip.launches_early and LAUNCHES_EARLY:
        return {"EARLY": True, "launch_pdl": True}
    return {"EARLY": False}


def _bits(number: float) -> int:
    """Read a float64 as an integer: Triton rounds a float that is passed to a kernel to float32."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


def _kind(p: float) -> int:
    kinds = {
        2.0: kernels.EUCLIDEAN,
        1.0: kernels.SUM,
        float("inf"): kernels.LARGEST,
        0.0: kernels.COUNT,
        float("-inf"): kernels.SMALLEST,
    }
    kind = kinds.get(p, kernels.POWER if p > 0 else kernels.INVERSE_POWER)
    return int(kind.value)


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _accumulator(dtype: torch.dtype, what: str) -> Any:
    if dtype not in FLOATS:
        name = str(dtype).removeprefix("torch.")
        raise NotImplementedError(
            f"{what} of dtype {name}: this backend takes float16, bfloat16, float32 and float64"
        )
    return FLOATS[_sum_dtype(dtype)]


def _as_integers(tensor: torch.Tensor) -> torch.Tensor:
    """View elements as integers of the same width; complex ones as two."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.view(WORDS.get(tensor.element_size(), WIDE)[0])


def ranked(
    indices: torch.Tensor, out: torch.Tensor, chip: plans.Chip
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort a few indices, stably, and fill `out`, which has a row for each, with zeros meanwhile.

    Returns
    -------
    keys, positions : Tensor, shape (N,)
        The sorted indices, and where each stood.
    """
    count = len(indices)
    keys = torch.empty_like(indices)
    positions = torch.empty(count, dtype=torch.int32, device=indices.device)
    key, never = (tl.int32, 2**31 - 1) if len(out) < 2**31 else (tl.int64, 2**63 - 1)
    mine, others = RANK_TILE if chip is not plans.NO_CHIP else (256, 1024)
    rankers = _programs(count, mine)
    cleared = plans.cleared_per_program(out.element_size(), chip)
    with _launching(indices):
        scatters.rank_kernel[(rankers + _programs(out.numel(), cleared),)](
            indices,
            keys,
            positions,
            out,
            count,
            out.numel(),
            rankers,
            KEY=key,
            NEVER=never,
            MINE=mine,
            OTHERS=others,
            CLEARED=cleared,
            **_turn(True, chip),
        )
    return keys, positions


def _add_few(
    sums: tuple[torch.Tensor, ...], count: int, walk: plans.Walk, common: dict[str, Any]
) -> None:
    """Add up what segments left in few groups, in one launch."""
    width = sums[-1].shape[1]
    at_once, columns = FEW_LONG_CHAIN_TILE
    short_columns = min(plans.power_of_two(width), FEW_CHAIN_COLUMNS)
    long_blocks, blocks = _programs(width, columns), _programs(width, short_columns)
    searchers = (walk.groups - 1) // plans.LONGEST_CHAIN * long_blocks
    scatters.chains_kernel[(searchers + walk.groups * blocks,)](
        *sums,
        count,
        walk.groups,
        walk.length,
        searchers,
        long_blocks,
        blocks,
        width,
        COLUMNS=short_columns,
        AT_ONCE=CHAIN_ROWS,
        LONG_COLUMNS=columns,
        LONG_AT_ONCE=at_once,
        LONGEST=plans.LONGEST_CHAIN,
        **common,
    )


def _add_many(
    sums: tuple[torch.Tensor, ...],
    found: torch.Tensor,
    count: int,
    walk: plans.Walk,
    common: dict[str, Any],
    *,
    most: int,
) -> None:
    """Add up what segments left in many groups: those that enter very many come last."""
    width = sums[-1].shape[1]
    chains = torch.empty(
        walk.groups // plans.LONGEST_CHAIN + 1, dtype=torch.int64, device=found.device
    )
    chained = (*sums, found, chains, count, walk.groups, walk.length)
    columns = min(plans.power_of_two(width), CHAIN_COLUMNS)
    blocks = _programs(width, columns)
    scatters.chain_kernel[(walk.groups * blocks,)](
        *chained,
        blocks,
        width,
        COLUMNS=columns,
        AT_ONCE=CHAIN_ROWS,
        LONGEST=plans.LONGEST_CHAIN,
        num_warps=1,
        **common,
    )
    at_once, columns = LONG_CHAIN_TILE
    blocks = _programs(width, columns)
    scatters.long_chain_kernel[(min(most, blocks * len(chains)),)](
        *chained, blocks, width, COLUMNS=columns, AT_ONCE=at_once, **common
    )


def _sorted(indices: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Sort indices, stably.

    Returns
    -------
    keys : Tensor, shape (N,)
        The sorted indices, less `offset`: in 16 bits where they fit, to halve a radix sort's
        passes.
    positions : Tensor, shape (N,)
        Where each stood.
    offset : int
    """
    count, offset = len(indices), 0
    if rows <= 2**16:
        offset = 2**15
        short = torch.empty(count, dtype=torch.int16, device=indices.device)
        torch.sub(indices, offset, out=short)
        indices = short
    elif rows <= 2**31:
        indices = indices.to(torch.int32)
    keys, positions = torch.sort(indices, stable=True)
    return keys, positions, offset
