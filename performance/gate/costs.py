"""What a head costs besides time: memory that its calls need, and memory that they keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from embconform.performance.memory import Memory

MORE: Final = 0.1
"""A peak that is higher by less than this and :data:`SLACK` is no finding."""
SLACK: Final = 2**20
KEPT: Final = 512
"""Bytes of each call; torch counts its own allocations exactly."""


@dataclass(frozen=True, slots=True)
class Weight:
    """Memory of a benchmark on both sides, in bytes a call, and what is wrong with it."""

    base_peak: int
    head_peak: int
    base_kept: float
    head_kept: float
    wrong: str = ""


def weigh(base: Sequence[Memory], head: Sequence[Memory]) -> Weight:
    """Compare; a finding has to show in every process.

    Parameters
    ----------
    base, head : sequence of Memory
        One a process, in their order.

    Returns
    -------
    Weight
        The least of each.
    """
    old, new = min(m.peak_bytes for m in base), min(m.peak_bytes for m in head)
    kept_before, kept = min(m.kept_bytes for m in base), min(m.kept_bytes for m in head)
    most = max(m.peak_bytes for m in base)
    wrong = ""
    if kept > max(m.kept_bytes for m in base) + KEPT:
        wrong = f"keeps {kept / 2**20:.2f} MiB of each call, base {kept_before / 2**20:.2f}"
    elif new > most * (1 + MORE) + SLACK:
        wrong = f"needs {new / 2**20:.1f} MiB at its peak, base {old / 2**20:.1f}"
    return Weight(old, new, kept_before, kept, wrong)
