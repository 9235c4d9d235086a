"""Whether a time reaches its target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from embconform.performance.cuda_targets.contenders import (
    ATEN,
    ATOMIC,
    DETERMINISTIC,
    INDUCTOR,
    PATHS,
)
from embconform.performance.cuda_targets.race import EMPTY
from embconform.performance.cuda_targets.rows import CLIFF, Row
from embconform.performance.statistics import Estimate, median

SHARE: Final = 0.92
LAUNCH: Final = 1.2
BACKWARD, BACKWARD_FLOOR = 2.0, 1.5
EQUAL, MAX_NORM, ORDER = 5.0, 5.0, 1.3
STEP: Final = 1.2
"""Most that a time may grow beyond the growth of N, from one row of :data:`CLIFF` to the next."""

Samples = Mapping[str, list[float]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, and whether it is met.

    Attributes
    ----------
    target : str
    met : bool or None
        None where what it is compared with is missing.
    said : str
        The numbers that decide.
    """

    target: str
    met: bool | None
    said: str


def ratio(samples: Samples, name: str, base: str) -> Estimate | None:
    """Give the time of a contender over another's, round by round.

    Parameters
    ----------
    samples : mapping of str to list of float
        Seconds, one a round.
    name, base : str

    Returns
    -------
    Estimate or None
        None where one is missing, or they have not had the same rounds.
    """
    ours, theirs = samples.get(name), samples.get(base)
    if not ours or not theirs or len(ours) != len(theirs):
        return None
    return median(np.asarray(ours) / np.asarray(theirs))


def verdicts(
    row: Row, name: str, samples: Samples, *, floor: float, before: Mapping[int, float]
) -> list[Verdict]:
    """Judge a contender of ours in a row.

    Parameters
    ----------
    row : Row
    name : str
    samples : mapping of str to list of float
        Of all contenders of the row that were right; `name` among them.
    floor : float
        Seconds that moving the bytes takes at the copy bandwidth of the run.
    before : mapping of int to float
        Seconds of the same contender in other rows of :data:`CLIFF`, by N.

    Returns
    -------
    list of Verdict
        Empty where there is no target, as for a path that users don't choose.
    """
    if name.endswith(tuple(f" {path}" for path in PATHS)):
        return []
    seconds = median(samples[name]).value
    found = []
    if name.endswith(DETERMINISTIC):
        found.append(_at_most(samples, name, _disorderly(samples, name), ORDER))
    elif row.group == "forward":
        share = floor / seconds
        found.append(Verdict(f">= {SHARE:.0%} of copying", share >= SHARE, f"{share:.1%}"))
        found += [_not_slower(samples, name, peer) for peer in (ATEN, INDUCTOR)]
    elif row.group == "small":
        found.append(_at_most(samples, name, EMPTY, LAUNCH))
    elif row.group == "backward":
        found.append(_times_faster(samples, name, BACKWARD))
        said = f"{seconds / floor:.2f}x"
        target = f"<= {BACKWARD_FLOOR}x floor"
        found.append(Verdict(target, seconds <= BACKWARD_FLOOR * floor, said))
    elif row.group == "equal" and row.count not in CLIFF:
        found.append(_times_faster(samples, name, EQUAL))
    elif row.group == "max_norm":
        found.append(_times_faster(samples, name, MAX_NORM))
    if row.group == "equal" and row.count in CLIFF[1:]:
        found.append(_no_cliff(row, seconds, before))
    return found


def _disorderly(samples: Samples, name: str) -> str:
    """Choose what a deterministic pass is held against: atomics, or what users get if faster."""
    family = name.removesuffix(DETERMINISTIC)
    timed = [base for base in (family, f"{family} {ATOMIC}") if base in samples]
    return min(timed, key=lambda base: median(samples[base]).value, default=family)


def _times_faster(samples: Samples, name: str, wanted: float) -> Verdict:
    target, found = f">= {wanted:g}x {ATEN}", ratio(samples, ATEN, name)
    if found is None:
        return Verdict(target, None, f"no {ATEN}")
    return Verdict(target, found.value >= wanted, f"{found.value:.2f}x faster")


def _at_most(samples: Samples, name: str, base: str, wanted: float) -> Verdict:
    target, found = f"<= {wanted:g}x {base}", ratio(samples, name, base)
    if found is None:
        return Verdict(target, None, f"no {base}")
    return Verdict(target, found.value <= wanted, f"{found.value:.2f}x")


def _not_slower(samples: Samples, name: str, peer: str) -> Verdict:
    """Slower is what a whole interval says; copies at the same ceiling differ by noise."""
    target, found = f"not slower than {peer}", ratio(samples, name, peer)
    if found is None:
        return Verdict(target, None, f"no {peer}")
    least = found.low if found.bounded else found.value
    return Verdict(target, least <= 1, f"{found.value:.3f}x")


def _no_cliff(row: Row, seconds: float, before: Mapping[int, float]) -> Verdict:
    last = CLIFF[CLIFF.index(row.count) - 1]
    target = f"no cliff: <= {STEP:g}x the growth from N = {last:,}"
    if last not in before:
        return Verdict(target, None, f"no time at {last:,}")
    step = seconds / before[last] / (row.count / last)
    return Verdict(target, step <= STEP, f"{step:.2f}x")
