"""What a set of GPU kernels must offer for :mod:`operator` to make an embedding of it."""

from __future__ import annotations

from typing import Protocol

import torch

NO_ROW = -1
"""As padding_idx: no row is padding."""


class Kernels(Protocol):
    """Launches on the current stream; nothing here waits for the device.

    Every tensor of a call lies on one device. ``indices`` is int32 or int64, of shape (N,), and
    contiguous. ``weight`` has shape (V, D) and any strides. ``fault`` is an int64 tensor of shape
    (1,) on the device and ``report`` one that the host can read without a copy (the same tensor on
    a CPU); both hold 0 until an index i is out of range, and then :func:`encoded` of one such i.
    """

    def check(
        self, indices: torch.Tensor, rows: int, fault: torch.Tensor, report: torch.Tensor
    ) -> None:
        """Write an index outside 0..rows-1 to `fault` and `report`."""

    def renorm(
        self,
        weight: torch.Tensor,
        indices: torch.Tensor,
        max_norm: float,
        norm_type: float,
        fault: torch.Tensor,
    ) -> None:
        """Scale each looked-up row whose p-norm is above `max_norm`, in place, once.

        By ``max_norm / (norm + 1e-7)``, the norm in float32 (float64 for float64 tables). Nothing
        happens where `fault` is not 0.
        """

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
        """Copy rows, bit for bit: shape (N, D), contiguous, of `weight`'s dtype.

        Rows at `padding_idx` come out as 0. With `scale` of shape (V,) and float32 (float64 for
        float64 tables) the row of index i is multiplied by ``scale[i]``; no bits are kept then. An
        index out of range is written to `fault` and `report`; its row may hold anything.
        """

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

        `upstream` has shape (N, D) and any strides. Sums are accumulated in float32 (float64 for
        float64). Row `padding_idx` is 0. With `scale_grad_by_freq` each sum is divided by the
        number of times that its index occurs. Indices are known to be in range.
        """


def encoded(index: int) -> int:
    """Write an index that is out of range as a number that is not 0: i, or i + 1 from 0 on."""
    return index if index < 0 else index + 1


def decoded(fault: int) -> int:
    """Read what :func:`encoded` wrote."""
    return fault if fault < 0 else fault - 1
