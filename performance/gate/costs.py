"""What a head costs besides time: memory that its calls need and keep, and accuracy."""

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

TIMES: Final = 4.0
"""A gradient's largest error is a finding from this many times base's on."""
LEAST_ULP: Final = 1.0
"""An error up to this is none: both neighbours of the exact value are within it."""


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


@dataclass(frozen=True, slots=True)
class Errors:
    """The largest error of a gradient on both sides, in ulp, and what is wrong with it."""

    base_ulp: float
    head_ulp: float
    wrong: str = ""


def compare_errors(base_ulp: float, head_ulp: float) -> Errors:
    """Compare errors that are within their bound: these are findings of conformance otherwise.

    Parameters
    ----------
    base_ulp, head_ulp : float
        As :meth:`embconform.performance.checking.Oracle.largest_error` gives them, on the same
        inputs.

    Returns
    -------
    Errors
    """
    wrong = ""
    if head_ulp > max(TIMES * base_ulp, LEAST_ULP):
        wrong = f"has a gradient off by {head_ulp:.3g} ulp, base by {base_ulp:.3g}"
    return Errors(base_ulp, head_ulp, wrong)
