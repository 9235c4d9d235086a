"""Launches of the kernels in embedding.cu: which one, how many threads, and what scratch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, Final, Literal

import torch

from embconform.backends.gpu.kernels import NO_ROW
from embconform.backends.gpu.nvrtc import Module

SOURCE: Final = Path(__file__).with_name("embedding.cu")
_THREADS: Final = 256
_RESIDENT: Final = 2048
"""Threads that a multiprocessor holds."""
_ROUNDS: Final = (4, 16)
"""Indices that a thread of the sort takes, as in embedding.cu: few where there are few in all."""
_DIGIT: Final = 9
"""Bits that a pass of the sort looks at, at most."""
_FEW: Final = 8192
"""Indices that are ranked by comparing all pairs, as in embedding.cu."""
_FEW_THREADS: Final = 512
_FEW_TILE: Final = 64
_FEW_KEYS: Final = 2**24
"""Rows up to which float32 holds every index."""
_ROWS: Final = 2
"""Rows that a thread of the gather has in flight, as in embedding.cu, unless they are wide."""
_WIDE_UNITS: Final = 128
_CLAIMS: Final = 16
"""Indices that a warp of the renorm claims at a time, as in embedding.cu."""
_AHEAD: Final = 8
"""Rows that a thread of the reduction has in flight, as in embedding.cu."""
_COMBINED: Final = (512, 128)
"""Threads and columns of a block that adds up parts, as in embedding.cu."""
_NORMS: Final = {0.0: 0, 1.0: 1, 2.0: 2, inf: 3, -inf: 4}
_POWER: Final = 5
_VECTOR_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Place:
    """A device, its kernels, and the current stream."""

    module: Module
    stream: int
    processors: int

    def run(
        self, name: str, grid: tuple[int, ...], *arguments: Any, threads: int = _THREADS
    ) -> None:
        """Launch a kernel on tensors and numbers."""
        given = (a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments)
        self.module.launch(name, self.stream, grid, threads, *given)


class CudaKernels:
    """The Kernels in CUDA C++.

    Parameters
    ----------
    blocks : int
        Most blocks a multiprocessor for one kernel; so many that each has one piece of work were
        faster on an H200 than blocks that stay.
    walkers : int
        Threads a multiprocessor that add up rows in the backward.
    path : str
        How the backward adds: ``sorted``; ``atomic`` where the sum is of float32 or float64, not
        divided by counts and need not be deterministic; ``auto``, which is ``atomic`` for few
        indices and float64. Float32 is not added atomically unless asked for, since such additions
        to a GPU's global memory take subnormal numbers for 0 (PTX ISA, ``red``).
    """

    def __init__(
        self,
        *,
        blocks: int = 1 << 16,
        walkers: int = 2048,
        path: Literal["auto", "atomic", "sorted"] = "auto",
    ) -> None:
        self.blocks, self.walkers, self.path = blocks, walkers, path

    def check(
        self, indices: torch.Tensor, rows: int, fault: torch.Tensor, report: torch.Tensor
    ) -> None:
        """See :class:`~.kernels.Kernels`."""
        if not (count := indices.numel()):
            return
        place = self.place(indices)
        grid = self._grid(place, _ceil(count, _THREADS))
        place.run(f"check_{_name(indices)}", grid, indices, count, rows, fault, report)

    def renorm(
        self,
        weight: torch.Tensor,
        indices: torch.Tensor,
        max_norm: float,
        norm_type: float,
        fault: torch.Tensor,
    ) -> None:
        """See :class:`~.kernels.Kernels`."""
        (rows, width), count = weight.shape, indices.numel()
        if not count or not width:
            return
        claimed = torch.zeros(rows, dtype=torch.int32, device=weight.device)
        place = self.place(weight)
        kind = "renorm_vector" if _vectors(weight) else "renorm"
        place.run(
            f"{kind}_{_name(weight)}_{_name(indices)}",
            self._grid(place, _ceil(count, _CLAIMS * _THREADS // 32)),
            weight,
            *weight.stride(),
            indices,
            count,
            width,
            claimed,
            float(max_norm),
            _NORMS.get(norm_type, _POWER),
            float(norm_type),
            fault,
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
        """See :class:`~.kernels.Kernels`."""
        weight = weight.resolve_conj().resolve_neg()
        rows, width = weight.shape
        out = weight.new_empty(indices.numel(), width)
        if not indices.numel():
            return out
        place = self.place(weight)
        if width < 2 or weight.stride(1) == 1:
            self._gather_units(place, weight, indices, out, padding_idx, fault, report)
        else:
            grid = self._grid(place, _ceil(out.numel(), _THREADS))
            name = f"gather_strided_{weight.element_size()}_{_name(indices)}"
            sizes = (indices.numel(), width, rows, padding_idx)
            place.run(name, grid, weight, *weight.stride(), indices, out, *sizes, fault, report)
        if scale is not None:
            out = (out * scale[indices][:, None]).to(weight.dtype)
        return out

    def _gather_units(  # noqa: PLR0917, a launch's
        self,
        place: Place,
        weight: torch.Tensor,
        indices: torch.Tensor,
        out: torch.Tensor,
        padding_idx: int,
        fault: torch.Tensor,
        report: torch.Tensor,
    ) -> None:
        row_bytes = weight.shape[1] * weight.element_size()
        stride = weight.stride(0) * weight.element_size()
        unit = next(
            size
            for size in (16, 8, 4, 2, 1)
            if not (row_bytes % size or stride % size or weight.data_ptr() % size)
        )
        units, count = row_bytes // unit, indices.numel()
        few = count * units <= 8 * _THREADS * place.processors
        lanes = _power(units, _THREADS) if few else _lanes(units, _THREADS)
        kind = "few_" if few else "wide_" if units >= max(_WIDE_UNITS, 2 * lanes) else ""
        sizes = (count, units, weight.shape[0], padding_idx, lanes.bit_length() - 1)
        place.run(
            f"gather_{kind}{unit}_{_name(indices)}",
            self._grid(place, _ceil(count, _THREADS // lanes * (1 if kind else _ROWS))),
            weight,
            stride,
            indices,
            out,
            *sizes,
            fault,
            report,
        )

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
        """See :class:`~.kernels.Kernels`."""
        count, width = upstream.shape
        if not count or not width:
            return upstream.new_zeros(rows, width)
        if width > 1 and upstream.stride(1) != 1:
            upstream = upstream.contiguous()
        half = upstream.element_size() == 2  # atomics would add in 16 bits
        keeps = upstream.dtype == torch.float64 and count <= _FEW
        chosen = self.path == "atomic" or (self.path == "auto" and keeps)
        if chosen and not (deterministic or scale_grad_by_freq or half):
            return self._scatter_atomic(upstream, indices, rows, padding_idx)
        return self._scatter_sorted(upstream, indices, rows, padding_idx, scale_grad_by_freq)

    def _scatter_atomic(
        self, upstream: torch.Tensor, indices: torch.Tensor, rows: int, padding_idx: int
    ) -> torch.Tensor:
        count, width = upstream.shape
        gradient = upstream.new_zeros(rows, width)
        place, vector = self.place(upstream), _vectors(upstream)
        lanes = _lanes(width // vector if vector else width, _THREADS)
        place.run(
            f"add_rows{'_vector' if vector else ''}_{_name(upstream)}_{_name(indices)}",
            self._grid(place, _ceil(count, _THREADS // lanes)),
            upstream,
            upstream.stride(0),
            indices,
            gradient,
            count,
            width,
            padding_idx,
            lanes.bit_length() - 1,
        )
        return gradient

    def _scatter_sorted(
        self,
        upstream: torch.Tensor,
        indices: torch.Tensor,
        rows: int,
        padding_idx: int,
        by_frequency: bool,
    ) -> torch.Tensor:
        count, width = upstream.shape
        place, vector = self.place(upstream), _vectors(upstream)
        units = width // vector if vector else width
        lanes = max(_AHEAD, _lanes(units, 32))
        columns = _ceil(units, lanes)
        share = _ceil(count * columns * lanes, place.processors * self.walkers)
        step = lanes if share > lanes else _AHEAD
        length = _ceil(share, step) * step
        groups = _ceil(count, length)
        gradient = upstream.new_empty(rows, width)
        owners = torch.empty(groups + 1, dtype=torch.int32, device=upstream.device)
        keys, positions = self._sort(place, indices, rows, padding_idx, owners, gradient)
        wide = torch.float64 if upstream.dtype == torch.float64 else torch.float32
        parts = torch.empty(groups, 2, width, dtype=wide, device=upstream.device)
        kind = f"{'_vector' if vector else ''}_{_name(upstream)}"
        shape = (count, rows, width, length, lanes.bit_length() - 1)
        grid: tuple[int, ...] = (_ceil(groups * columns, _THREADS // lanes),)
        walked = (upstream, upstream.stride(0), keys, positions, *shape, gradient, parts, owners)
        place.run(f"reduce{kind}", grid, *walked, int(by_frequency))
        threads, across = _COMBINED
        pieces = _ceil(width, across)
        resident = _ceil(place.processors * _RESIDENT // threads, pieces)
        grid = (min(groups, resident), pieces)
        added = (keys, count, width, length, gradient, parts, owners, int(by_frequency))
        place.run(f"combine_{_name(upstream)}", grid, *added, threads=threads)
        return gradient

    def _sort(  # noqa: PLR0917, a launch's
        self,
        place: Place,
        indices: torch.Tensor,
        rows: int,
        padding_idx: int,
        owners: torch.Tensor,
        gradient: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sort the positions of the indices, padding last, and clear the gradient meanwhile."""
        count, device = indices.numel(), indices.device
        if rows >= 2**32 - 1 or count >= 2**32:
            raise NotImplementedError(f"{rows} rows, {count} indices: the sort counts in 32 bits")
        if count <= _FEW and rows < _FEW_KEYS:
            return self._rank_few(place, indices, rows, padding_idx, owners, gradient)
        digit, passes = _digits(rows, _DIGIT)
        scratch = torch.empty(4, count, dtype=torch.int32, device=device)
        rounds = _ROUNDS[count >= place.processors * _THREADS * _ROUNDS[1]]
        blocks = _ceil(count, _THREADS * rounds)
        counts = torch.empty(2**digit * (blocks + 1), dtype=torch.int32, device=device)
        totals = counts[2**digit * blocks :]
        size = gradient.nbytes
        clearing = _clearers(place, size, _THREADS)
        keys, positions, source = indices, None, _name(indices)
        for turn in range(passes):
            look = (count, rows, padding_idx, turn * digit, digit)
            shares = [(gradient, size, turn * 3 + k, passes * 3) for k in range(3)]
            grid = (blocks + clearing,)
            name = f"{rounds}_{source}"
            place.run(f"count_digits_{name}", grid, keys, *look, counts, owners, *shares[0])
            bins = (2**digit, _ceil(2**digit, 8))
            place.run(
                "add_up_digits", (bins[1] + clearing,), counts, totals, blocks, bins[0], *shares[1]
            )
            to = scratch[2 * (turn % 2) : 2 * (turn % 2) + 2]
            given = (keys, 0 if positions is None else positions, *look, counts, totals)
            place.run(f"place_{name}", grid, *given, to[0], to[1], *shares[2])
            keys, positions, source = to[0], to[1], "key"
        assert positions is not None
        return keys, positions

    def _rank_few(  # noqa: PLR0917, a launch's
        self,
        place: Place,
        indices: torch.Tensor,
        rows: int,
        padding_idx: int,
        owners: torch.Tensor,
        gradient: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Do what :meth:`_sort` does, in one launch."""
        count = indices.numel()
        size = gradient.nbytes
        clearing = _clearers(place, size, _FEW_THREADS)
        made = torch.empty(2, count, dtype=torch.int32, device=indices.device)
        place.run(
            f"rank_few_{_name(indices)}",
            (_ceil(count, _FEW_TILE) + clearing,),
            *(indices, count, rows, padding_idx, made[0], made[1], owners, gradient, size),
            threads=_FEW_THREADS,
        )
        return made[0], made[1]

    def place(self, tensor: torch.Tensor) -> Place:
        """Give the kernels of a tensor's device, and its current stream."""
        device = tensor.device
        module, processors = _loaded(device.index or 0)
        return Place(module, torch.cuda.current_stream(device).cuda_stream, processors)

    def _grid(self, place: Place, wanted: int) -> tuple[int]:
        return (max(1, min(wanted, self.blocks * place.processors)),)


@cache
def _loaded(device: int) -> tuple[Module, int]:
    properties = torch.cuda.get_device_properties(device)
    arch = f"sm_{properties.major}{properties.minor}"
    return Module(SOURCE, arch, device), properties.multi_processor_count


def _clearers(place: Place, size: int, threads: int) -> int:
    """Choose how many blocks clear `size` bytes of a gradient beside others."""
    return min(4 * place.processors, _ceil(size, _VECTOR_BYTES * threads))


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _vectors(tensor: torch.Tensor) -> int:
    """Give how many elements 16 bytes hold where every row is whole such vectors, else 0."""
    per = _VECTOR_BYTES // tensor.element_size()
    whole = tensor.shape[1] % per == 0 and tensor.stride(0) % per == 0
    fits = whole and tensor.stride(1) == 1 and tensor.data_ptr() % _VECTOR_BYTES == 0
    return per if fits else 0


def _lanes(units: int, most: int) -> int:
    """Choose how many threads share a row: a power of 2 that leaves few of them idle."""
    best, used = 1, 0.0
    lanes = 1
    while lanes <= min(most, units):
        share = units / (_ceil(units, lanes) * lanes)
        if share > used - 0.02:
            best, used = lanes, max(used, share)
        lanes *= 2
    return best


def _digits(rows: int, most: int) -> tuple[int, int]:
    """Give the bits of a digit and the number of passes that sort the keys 0..rows."""
    bits = max(1, rows.bit_length())
    passes = _ceil(bits, most)
    return _ceil(bits, passes), passes


def _power(units: int, most: int) -> int:
    """Give the first power of 2 from `units` on, or `most`."""
    return int(min(most, 1 << max(0, units - 1).bit_length()))


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
