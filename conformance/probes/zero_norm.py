"""max_norm with a norm_type of 0, which counts the components that are not 0."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from embconform.conformance.probes.transforms.claims import Bounded, Lookup
from embconform.conformance.probes.transforms.common import MANY, Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read

_CLAUSE: Final = "max-norm.zero-norm-type"
HEIGHT: Final = 9
WIDTHS: Final = (3, MANY, 300, 1_030)
"""Columns of a row in one part and in several, whose counts add up and are not counted again."""


def _counted(lab: Lab) -> Iterator[Trial]:
    for width in lab.few(WIDTHS):
        yield partial(_bounded, lab, width)


def _bounded(lab: Lab, width: int) -> Claims:
    """Look up rows of ordinary numbers, some of them 0: no row, one of them or all of a row."""
    table = lab.table(HEIGHT, width)
    table[lab.draw.random(table.shape) < 0.3] = 0
    table[1] = 0
    table[2, 1:] = 0
    ids = lab.draw.integers(0, HEIGHT - 1, (2, 7))
    lookup = Lookup(ids, table, {"max_norm": 2.0, "norm_type": 0.0}, lab.profile)
    weight = lab.tensor(table)
    out = lab.bind(lookup)(lab.tensor(ids), weight)
    told = f"a call for {lookup} and {width} columns"
    yield Bounded(told, read(out), read(weight), lookup)


ZERO_NORM_PROBE: Final = probe_of(_CLAUSE, _counted, may_refuse=True)
