"""How fast the device moves bytes at best: by copying, and in other ways that rows move them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch

from embconform.performance.cuda_targets.clocks import Clock, DryClock, EventClock
from embconform.performance.cuda_targets.rows import LARGE, MEDIUM
from embconform.performance.passes import Work

COPY: Final = "copy"
HOT: Final = "hot copy"
GRADIENT: Final = 250_000 * 768 * 4
"""Bytes of the largest gradient of the backward rows."""
PARTS: Final = 32
"""Parts that torch.cat puts together; one of 512 MiB is 16 MiB, a third of an H100's L2."""
_DRY: Final = 2**16


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A way to move bytes.

    Attributes
    ----------
    name : str
    counted : str
        Which bytes its rate is of.
    sizes : tuple of int
        Bytes that a call reads, writes, or each of both.
    each : int
        How many times the size a call moves to or from memory.
    make : callable
        Gives, for a size and a device, what is timed.
    """

    name: str
    counted: str
    sizes: tuple[int, ...]
    each: int
    make: Callable[[int, str], Callable[[], object]]


def _copy(size: int, device: str) -> Callable[[], object]:
    source, target = _source(size, device), _target(size, device)
    return lambda: target.copy_(source)


def _zeros(size: int, device: str) -> Callable[[], object]:
    return _target(size, device).zero_


def _numbers(size: int, device: str) -> Callable[[], object]:
    """Write what is not the same everywhere, lest equal bytes be a special case."""
    target = _target(size, device).view(torch.int64)
    return lambda: torch.arange(len(target), out=target)


def _sum(size: int, device: str) -> Callable[[], object]:
    return _source(size, device).view(torch.float32).sum


def _cold_parts(size: int, device: str) -> Callable[[], object]:
    parts, target = list(_source(size, device).chunk(PARTS)), _target(size, device)
    return lambda: torch.cat(parts, out=target)


def _hot_parts(size: int, device: str) -> Callable[[], object]:
    """Copy from a source that L2 holds; :func:`_cold_parts` is the same kernel without that."""
    parts, target = [_source(size // PARTS, device)] * PARTS, _target(size, device)
    return lambda: torch.cat(parts, out=target)


def _source(size: int, device: str) -> torch.Tensor:
    """Give random bits; as float32, most are finite numbers."""
    return torch.randint(2**31 - 2**23, (size // 4,), dtype=torch.int32, device=device)


def _target(size: int, device: str) -> torch.Tensor:
    return torch.zeros(size // 4, dtype=torch.int32, device=device)


CEILINGS: Final = (
    Ceiling(COPY, "read and written", (MEDIUM, LARGE, 2 * LARGE), 2, _copy),
    Ceiling("zeros", "written", (LARGE, GRADIENT), 1, _zeros),
    Ceiling("numbers", "written", (LARGE, GRADIENT), 1, _numbers),
    Ceiling("sum", "read", (LARGE, 2 * LARGE), 1, _sum),
    Ceiling("cat", "read and written", (LARGE,), 2, _cold_parts),
    Ceiling(HOT, "written", (MEDIUM, LARGE), 1, _hot_parts),
)


def look(device: str, samples: int) -> Iterator[tuple[Ceiling, int, list[float]]]:
    """Time everything that bytes are moved by, the way that all else is timed.

    Parameters
    ----------
    device : str
    samples : int
        Of each.

    Yields
    ------
    ceiling : Ceiling
    size : int
    seconds : list of float
    """
    clock: Clock = EventClock() if device == "cuda" else DryClock()
    for ceiling in CEILINGS:
        for size in ceiling.sizes if device == "cuda" else (_DRY,):
            run, nothing = ceiling.make(size, device), torch.empty(0, device=device)
            work = Work(lambda _, run=run: run(), None, nothing)  # type: ignore[misc]
            clock.ready(work, nothing)
            yield ceiling, size, [clock.sample(work, nothing).seconds for _ in range(samples)]
            del run, work
