"""Draw the options of a call: which row is padding, and the bound of norms."""

from __future__ import annotations

from typing import Final

import numpy as np

from embconform.conformance.cases.fills import SMALL
from embconform.conformance.cases.one_shape import one_padding
from embconform.conformance.cases.programs import EITHER, Draw, among, between
from embconform.conformance.cases.structure import Structure
from embconform.reference.dtypes import Array, format_of, in_float64
from embconform.reference.oracle import Options

LEAST: Final = 2.0**-30
"""A bound's quotient by a norm might be no normal number below that."""


def draw_options(
    draw: Draw, s: Structure, table: Array, *, compiled: bool, one_shape: bool
) -> Options:
    """Draw the options of a structure's call.

    Parameters
    ----------
    draw : callable
        Hypothesis's, of a composite strategy.
    s : Structure
    table : ndarray
    compiled, one_shape : bool
        See :func:`embconform.conformance.cases.draws.draw_case`.

    Returns
    -------
    Options
    """
    return Options(
        padding_idx=_draw_padding(draw, s, len(table), one_shape=one_shape),
        max_norm=None if s.bound == "none" else _draw_bound(draw, s, table, compiled=compiled),
        norm_type=float(s.bound[1:]) if s.bound.startswith("p") else 2.0,
        scale_grad_by_freq=s.gradient.endswith("scaled"),
        sparse=s.gradient.startswith("sparse"),
    )


def _draw_padding(draw: Draw, s: Structure, rows: int, *, one_shape: bool) -> int | None:
    if s.fault == "padding-above":
        return int(rows + draw(between(0, 2)))
    if s.fault == "padding-below":
        return int(-rows - draw(between(1, 3)))
    if one_shape and s.padding in ("inner", "negative"):
        return one_padding(s, rows)
    match s.padding:
        case "zero":
            return 0
        case "last":
            return rows - 1
        case "inner":
            least = min(1, rows - 1)
            return int(draw(between(least, max(rows - 2, least))))
        case "negative":
            return int(-draw(between(1, rows)))
    return None


def _draw_bound(draw: Draw, s: Structure, table: Array, *, compiled: bool) -> float:
    if s.bound == "zero":
        return 0.0
    if s.table == "spike":
        if compiled:
            return 4.0
        kind = draw(among(("met", "met", "twice met", "any")))
        if kind == "any":
            return float(draw(between(1, 9)))
        row = table[draw(between(0, len(table) - 1))]
        norm = float(np.abs(row.astype(np.float64)).max())  # whatever p
        return norm if kind == "met" else norm / 2
    ordinary = 1.0 if compiled else draw(among((1.0, 0.5, 2.0, 0.25, 4.0, 0.3, 1.7)))
    shared = 0.0 if compiled or not draw(EITHER) else _share_of_a_norm(draw, s, table)
    return float(shared or ordinary * SMALL.get(s.table, 1.0))


def _share_of_a_norm(draw: Draw, s: Structure, table: Array) -> float:
    """Give nine tenths or half of a row's norm, which a shortcut may take for small; else 0."""
    row = in_float64(table[draw(between(0, len(table) - 1))]) if len(table) else table
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.linalg.norm(row, float(s.bound[1:]))) if row.size else 0.0
    share = norm * draw(among((0.5, 0.9)))
    return share if LEAST < share < format_of(s.dtype).largest else 0.0
