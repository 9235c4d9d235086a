"""A whole run: rows in turn, ceilings between them, and what to do when the device dies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import groupby
from time import perf_counter
from typing import Final

from embconform.performance.cuda_targets.ceilings import look
from embconform.performance.cuda_targets.contenders import offers
from embconform.performance.cuda_targets.document import Document, Record
from embconform.performance.cuda_targets.inputs import Draws
from embconform.performance.cuda_targets.race import race
from embconform.performance.cuda_targets.rows import Row

MOST_SHARE: Final = 0.06
"""Of the time: what the samples of one row may take."""
LOOK_SAMPLES: Final = 10
"""Of each ceiling, before each group of rows and at the end."""

Told = Callable[[str, Document], None]


def measure(
    record: Record,
    rows: Sequence[Row],
    families: tuple[str, ...],
    *,
    samples: int,
    seconds: float,
    tell: Told,
) -> None:
    """Measure rows, and put what is found into a record.

    Parameters
    ----------
    record : Record
        Rows that it has already are not measured again.
    rows : sequence of Row
    families : tuple of str
        Contenders.
    samples : int
        Of each contender.
    seconds : float
        For everything; rows that it doesn't suffice for are listed as left out.
    tell : callable
        Called with the name and the entry of each row that is done.

    Raises
    ------
    DeadDeviceError
        If a contender has ended the CUDA context. The record is whole as far as it goes.
    """
    began, draws = perf_counter(), Draws(record.device)
    record.left_out = []
    missing = [row for row in rows if row.name not in record.rows]
    for _, group in groupby(
        missing, key=lambda row: (row.group, row.group == "forward" and row.label)
    ):
        _look(record)
        for row in group:
            left = seconds - (perf_counter() - began)
            if left <= 0:
                record.left_out.append(row.name)
                continue
            inputs = draws.make(row if record.device == "cuda" else row.dry())
            runners = race(
                inputs,
                offers(inputs, families),
                samples=samples,
                seconds=min(left, MOST_SHARE * seconds),
            )
            entry = record.add(row.name, inputs, runners)
            del inputs, runners
            tell(row.name, entry)
    _look(record)
    record.notes += [note for note in draws.notes if note not in record.notes]


def _look(record: Record) -> None:
    """Time copies and the like, and ask NVML for the state of the chip under this load."""
    for ceiling, size, seconds in look(record.device, LOOK_SAMPLES):
        record.ceilings.setdefault(ceiling.name, {}).setdefault(size, []).extend(seconds)
    if record.device == "cuda":
        from embconform.performance.cuda import read_chip

        chip = read_chip()
        record.chips.append(asdict(chip) if chip else {"chip": "not told: nvidia-ml-py is missing"})
