"""Out-of-range indices: how a kernel tells the host, and when the host looks.

A kernel that meets such an index writes it, as :func:`~.kernels.encoded` says, to a cell in device
memory, which later kernels of the same call obey, and to one in pinned host memory, which the host
reads without a copy. The context survives, unlike after a device assert.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch

from embconform.backends.gpu.kernels import decoded

Mode = Literal["sync", "async"]


@dataclass(frozen=True, slots=True)
class Cells:
    """Where a kernel writes an index that is out of range: int64 of shape (1,), 0 for none."""

    fault: torch.Tensor
    report: torch.Tensor

    def read(self) -> int | None:
        """Give the index and clear the cells; None where there is none."""
        found = int(self.report[0])
        if not found:
            return None
        self.report.zero_()
        if self.fault is not self.report:
            self.fault.zero_()
            torch.cuda.current_stream(self.fault.device).synchronize()
        return decoded(found)


@dataclass
class _Device:
    """A device's cells: free ones, one a stream for calls nobody waits for, one for graphs."""

    free: list[Cells] = field(default_factory=list)
    by_stream: dict[int, Cells] = field(default_factory=dict)
    captured: Cells | None = None


_devices: dict[torch.device, _Device] = {}
_lock = threading.Lock()
_mode: Mode = "sync"


@contextmanager
def range_check(mode: Mode) -> Iterator[None]:
    """Choose when the host looks for indices that are out of range.

    Parameters
    ----------
    mode : str
        ``sync``, the default: each call waits for the device and raises itself. ``async``: no call
        waits; a later call on the same stream, or :func:`raise_pending`, raises. A call that is
        captured in a CUDA graph is never waited for.

    Raises
    ------
    ValueError
        If there is no such mode.
    """
    global _mode  # noqa: PLW0603
    if mode not in ("sync", "async"):
        raise ValueError(f"no range check {mode!r}; there are sync and async")
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


@contextmanager
def cells(device: torch.device, rows: int, *, wait: bool = True) -> Iterator[Cells]:
    """Lend a call its cells, and raise afterwards for what was written there.

    Parameters
    ----------
    device : torch.device
    rows : int
        V, for the message.
    wait : bool
        False where the indices are known to be in range.

    Raises
    ------
    IndexError
        If an index was out of range: of this call, or of an earlier one that nobody waited for.
    """
    if device.type != "cuda":
        cell = torch.zeros(1, dtype=torch.int64, device=device)
        lent = Cells(cell, cell)
        yield lent
        _raise(lent, rows)
        return
    known = _known(device)
    if torch.cuda.is_current_stream_capturing():
        yield known.captured or _no_cells()
        return
    if _mode == "async":
        stream = torch.cuda.current_stream(device).cuda_stream
        lent = known.by_stream.get(stream) or known.by_stream.setdefault(stream, _made(device))
        _raise(lent, rows)
        yield lent
        return
    lent = _borrowed(known, device)
    try:
        yield lent
        if wait:
            torch.cuda.current_stream(device).synchronize()
            _raise(lent, rows)
    finally:
        known.free.append(lent)


def raise_pending() -> None:
    """Wait for every device and raise for an index that nobody has been told of.

    Raises
    ------
    IndexError
    """
    for device, known in _devices.items():
        torch.cuda.synchronize(device)
        for lent in (*known.by_stream.values(), *([known.captured] if known.captured else [])):
            _raise(lent, None)


def _raise(lent: Cells, rows: int | None) -> None:
    index = lent.read()
    if index is None:
        return
    if rows is None:
        raise IndexError(f"index {index} of an earlier call is out of range")
    wanted = f"indices must lie in 0..{rows - 1}" if rows else "the table has no rows"
    raise IndexError(f"index {index} is out of range: {wanted}")


def _known(device: torch.device) -> _Device:
    with _lock:
        known = _devices.setdefault(device, _Device())
        if known.captured is None and not torch.cuda.is_current_stream_capturing():
            known.captured = _made(device)
        return known


def _borrowed(known: _Device, device: torch.device) -> Cells:
    try:
        return known.free.pop()
    except IndexError:
        return _made(device)


def _made(device: torch.device) -> Cells:
    fault = torch.zeros(1, dtype=torch.int64, device=device)
    torch.cuda.current_stream(device).synchronize()  # other streams may use it next
    return Cells(fault, torch.zeros(1, dtype=torch.int64).pin_memory())


def _no_cells() -> Cells:
    raise RuntimeError("call the embedding once on this device before capturing it in a graph")
