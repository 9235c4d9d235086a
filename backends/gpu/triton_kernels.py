"""Triton kernels that look rows up and bound their norms.

Rows are cut into *units*: what one thread moves in one access, of `LANES` words of type `WORD`.
Strides are given in units and multiplied by the constant `LANES` here, which is how the compiler
learns that an address is a multiple of 16 bytes.
"""

# Triton's language looks like Python and is another: types are the launch's, and neither
# annotations, keyword-only parameters nor `in` can be written.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: PLR0915, PLR0917, PLR0124, PLR1714, SIM109

from __future__ import annotations

from typing import Final

from embconform.backends.gpu.triton_import import tl, triton

EUCLIDEAN: Final = tl.constexpr(0)
SUM: Final = tl.constexpr(1)
LARGEST: Final = tl.constexpr(2)
COUNT: Final = tl.constexpr(3)
SMALLEST: Final = tl.constexpr(4)
POWER: Final = tl.constexpr(5)
INVERSE_POWER: Final = tl.constexpr(6)
"""Kinds of p-norm: p = 2, 1, inf, 0, -inf, another positive and another negative p."""


@triton.jit
def wait_for_turn(EARLY: tl.constexpr):
    """Let the next kernel be launched, then wait until the one ahead has ended.

    Comes before any access, in kernels that are launched while the one ahead still runs (EARLY):
    none of them may end before it has waited, or the next would not wait for what it waits for.
    """
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def _report(index, bad, fault, report):
    """Write the bad indices, encoded, to the one word of `fault` and of `report`."""
    encoded = tl.where(index < 0, index, index + 1)
    here = tl.zeros_like(index)
    tl.store(fault + here, encoded, mask=bad)
    tl.store(report + here, encoded, mask=bad)


@triton.jit(do_not_specialize=["count", "rows"])
def check_kernel(indices, fault, report, count, rows, IDS: tl.constexpr):
    """Report an index out of range. Reads the indices; writes nothing where all are right."""
    place = tl.program_id(0).to(tl.int64) * IDS + tl.arange(0, IDS)
    inside = place < count
    index = tl.load(indices + place, mask=inside, other=0).to(tl.int64)
    _report(index, inside & ((index < 0) | (index >= rows)), fault, report)


@triton.jit(do_not_specialize=["count", "rows", "units", "row_stride", "unit_stride", "padding"])
def gather_kernel(
    weight,
    indices,
    scale,
    out,
    fault,
    report,
    count,
    rows,
    units,
    row_stride,
    unit_stride,
    padding,
    WORD: tl.constexpr,
    LANES: tl.constexpr,
    UNITS: tl.constexpr,
    OFFSET: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Copy rows, scaled where ACCUMULATOR is a type and bit for bit where it is None.

    Reads each index, and each looked-up row (again from L2, mostly, where it occurs again); writes
    the output once, past the cache, so that rows stay in L2. The output is cut into UNITS units a
    program, whatever the width: no thread idles at a width that is no power of two.
    """
    wait_for_turn(EARLY)
    start = tl.program_id(0).to(OFFSET) * UNITS
    first = start // units
    flat = (start - first * units).to(tl.int32) + tl.arange(0, UNITS)
    place = first + flat // units
    unit = (flat % units).to(tl.int64)
    inside = place < count
    index = tl.load(indices + place, mask=inside, other=0).to(tl.int64)
    good = (index >= 0) & (index < rows)
    _report(index, inside & (good == 0), fault, report)
    good = inside & good
    live = good & (index != padding)
    lane = tl.arange(0, LANES)[None, :]
    source = (index * row_stride + unit * unit_stride)[:, None] * LANES + lane
    pointer = weight.to(tl.pointer_type(WORD)) + source
    value = tl.load(pointer, mask=live[:, None], other=0)
    if ACCUMULATOR is not None:
        factor = tl.load(scale + index, mask=live, other=0)
        value = (value.to(ACCUMULATOR) * factor[:, None]).to(WORD)
    target = (start.to(tl.int64) + tl.arange(0, UNITS))[:, None] * LANES + lane
    pointer = out.to(tl.pointer_type(WORD)) + target
    tl.store(pointer, value, mask=good[:, None], cache_modifier=".cs")


@triton.jit(do_not_specialize=["count", "rows"])
def claim_kernel(
    indices,
    fault,
    claims,
    distinct,
    found,
    count,
    rows,
    IDS: tl.constexpr,
):
    """List each looked-up row once, in no particular order; none where `fault` is set.

    Reads the indices and a word of `claims` for each; writes that word and the list once for each
    row. A plain read comes first, so that frequent indices don't queue for the atomic exchange.
    """
    place = tl.program_id(0).to(tl.int64) * IDS + tl.arange(0, IDS)
    inside = (place < count) & (tl.load(fault) == 0)
    index = tl.load(indices + place, mask=inside, other=-1).to(tl.int64)
    fresh = inside & (index >= 0) & (index < rows)
    fresh = fresh & (tl.load(claims + index, mask=fresh, other=1) == 0)
    claim = tl.full([IDS], 1, tl.int32)
    won = fresh & (tl.atomic_xchg(claims + index, claim, mask=fresh, sem="relaxed") == 0)
    wins = won.to(tl.int32)
    base = tl.atomic_add(found, tl.sum(wins, 0).to(tl.int64), sem="relaxed")
    tl.store(distinct + base + tl.cumsum(wins, 0) - 1, index, mask=won)


@triton.jit
def _magnitudes(
    origin,
    live,
    start,
    width,
    unit_stride,
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Load |w| of a block of columns, 0 outside the row."""
    column = start + tl.arange(0, BLOCK)
    mask = live[:, None] & (column < width)[None, :]
    pointer = origin + (column.to(tl.int64) * unit_stride)[None, :]
    return tl.abs(tl.load(pointer, mask=mask, other=0).to(ACCUMULATOR)), mask


@triton.jit
def _extreme(magnitude, mask, KIND: tl.constexpr):
    """Find the largest magnitude of each row, or the smallest where that is what p asks for."""
    if KIND == SMALLEST or KIND == INVERSE_POWER:
        found = tl.min(tl.where(mask, magnitude, float("inf")), 1)
    else:
        found = tl.max(magnitude, 1)
    return found


@triton.jit
def _ruler(extreme, KIND: tl.constexpr, HUGE: tl.constexpr, SHRINK: tl.constexpr):
    """Choose what brings magnitudes to where no power overflows or vanishes.

    Where p is 1 or 2, a factor: a power of two, and 1 for ordinary rows, so that nothing is
    rounded. For other finite p a divisor, the largest magnitude (the smallest for negative p).
    """
    one = tl.full(extreme.shape, 1.0, extreme.dtype)
    if KIND == EUCLIDEAN or KIND == SUM:
        large = tl.where(extreme > HUGE, one * SHRINK, one)
        ruler = tl.where(extreme < 1.0 / HUGE, one * (1.0 / SHRINK), large)
    elif KIND == POWER or KIND == INVERSE_POWER:
        ruler = tl.where(extreme == 0, one, extreme)
    else:
        ruler = one
    return tl.where(extreme == float("inf"), one, ruler)


@triton.jit
def _terms(magnitude, mask, ruler, p, KIND: tl.constexpr):
    """Compute what a norm adds up: powers of magnitudes; for p = +-inf whether one is NaN."""
    if KIND == EUCLIDEAN:
        scaled = magnitude * ruler[:, None]
        terms = scaled * scaled
    elif KIND == SUM:
        terms = magnitude * ruler[:, None]
    elif KIND == COUNT:
        terms = (magnitude != 0).to(magnitude.dtype)
    elif KIND == LARGEST or KIND == SMALLEST:
        terms = (magnitude != magnitude).to(magnitude.dtype)
    else:
        scaled = magnitude / ruler[:, None]
        at_zero = 0.0 if KIND == POWER else float("inf")
        power = tl.exp2(p.to(magnitude.dtype) * tl.log2(tl.where(scaled == 0, 1.0, scaled)))
        terms = tl.where(scaled == 0, at_zero, power)
    return tl.where(mask, terms, 0.0)


@triton.jit
def _root(total, extreme, p, KIND: tl.constexpr):
    """Finish the norm, in units, from the sum of its terms (all float64)."""
    if KIND == EUCLIDEAN:
        norm = tl.sqrt(total)
    elif KIND == LARGEST or KIND == SMALLEST:
        norm = tl.where(total > 0, float("nan"), extreme)
    elif KIND == POWER or KIND == INVERSE_POWER:
        ordinary = (total > 0) & (total < float("inf"))
        at_zero = 0.0 if KIND == POWER else float("inf")
        at_infinity = float("inf") if KIND == POWER else 0.0
        beyond = tl.where(total == 0, at_zero, tl.where(total > 0, at_infinity, total))
        norm = tl.where(ordinary, tl.exp2(tl.log2(tl.where(ordinary, total, 1.0)) / p), beyond)
    else:
        norm = total
    return norm


@triton.jit(do_not_specialize=["max_norm_bits", "p_bits", "width_units", "row_stride"])
def renorm_kernel(
    weight,
    distinct,
    found,
    max_norm_bits,
    p_bits,
    width_units,
    row_stride,
    unit_stride,
    KIND: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    HUGE: tl.constexpr,
    SHRINK: tl.constexpr,
    SMALLEST_NORMAL: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Scale the listed rows that are too long.

    Reads each listed row from memory once, and writes those that are scaled. With `WHOLE` a block
    holds whole rows; else they are read three times in all, the others from L1. (Several rows a
    program and loops do not go together: docs/findings.md#triton-takes-a-value-out-of-its-loop.)
    `max_norm` and p come as the bits of a float64, since a float that is passed to a kernel is
    rounded to float32. Norm and scale are finished in float64, a number or two for each row. Where
    the scale would be subnormal since the norm is huge, the row and the norm are both multiplied by
    the power of two `SHRINK` first: such a row is bounded, not zeroed.
    """
    max_norm = max_norm_bits.to(tl.int64).to(tl.float64, bitcast=True)
    p = p_bits.to(tl.int64).to(tl.float64, bitcast=True)
    width = width_units * LANES
    total = tl.load(found)
    step = tl.num_programs(0).to(tl.int64) * ROWS
    first = tl.program_id(0).to(tl.int64) * ROWS
    while first < total:
        place = first + tl.arange(0, ROWS)
        live = place < total
        line = tl.load(distinct + place, mask=live, other=0).to(tl.int64) * row_stride * LANES
        origin = weight + line[:, None]
        if WHOLE:
            column = tl.arange(0, BLOCK)
            mask = live[:, None] & (column < width)[None, :]
            pointer = origin + (column.to(tl.int64) * unit_stride)[None, :]
            value = tl.load(pointer, mask=mask, other=0).to(ACCUMULATOR)
            magnitude = tl.abs(value)
            extreme = _extreme(magnitude, mask, KIND)
            ruler = _ruler(extreme, KIND, HUGE, SHRINK)
            powers = tl.sum(_terms(magnitude, mask, ruler, p, KIND), 1)
        else:
            extreme = tl.full(
                [ROWS],
                float("inf") if KIND == SMALLEST or KIND == INVERSE_POWER else 0.0,
                ACCUMULATOR,
            )
            start = 0
            while start < width:
                magnitude, mask = _magnitudes(
                    origin, live, start, width, unit_stride, ACCUMULATOR, BLOCK
                )
                found_here = _extreme(magnitude, mask, KIND)
                if KIND == SMALLEST or KIND == INVERSE_POWER:
                    extreme = tl.minimum(extreme, found_here)
                else:
                    extreme = tl.maximum(extreme, found_here)
                start += BLOCK
            ruler = _ruler(extreme, KIND, HUGE, SHRINK)
            powers = tl.zeros([ROWS], ACCUMULATOR)
            start = 0
            while start < width:
                magnitude, mask = _magnitudes(
                    origin, live, start, width, unit_stride, ACCUMULATOR, BLOCK
                )
                powers += tl.sum(_terms(magnitude, mask, ruler, p, KIND), 1)
                start += BLOCK
        root = _root(powers.to(tl.float64), extreme.to(tl.float64), p, KIND)
        unit = ruler.to(tl.float64)
        if KIND == EUCLIDEAN or KIND == SUM:
            unit = 1.0 / unit
        norm = root * unit
        vanishes = tl.abs(max_norm / (norm + 1e-7)) < SMALLEST_NORMAL
        shrink = tl.where(vanishes, tl.full([ROWS], SHRINK, tl.float64), 1.0)
        factor = (max_norm / (root * (unit * shrink) + 1e-7 * shrink)).to(ACCUMULATOR)
        over = live & (norm.to(ACCUMULATOR).to(tl.float64) > max_norm)
        if WHOLE:
            scaled = (value * shrink.to(ACCUMULATOR)[:, None]) * factor[:, None]
            tl.store(pointer, scaled.to(weight.dtype.element_ty), mask=mask & over[:, None])
        else:
            start = 0
            while start < width:
                column = start + tl.arange(0, BLOCK)
                mask = over[:, None] & (column < width)[None, :]
                pointer = origin + (column.to(tl.int64) * unit_stride)[None, :]
                value = tl.load(pointer, mask=mask, other=0).to(ACCUMULATOR)
                scaled = (value * shrink.to(ACCUMULATOR)[:, None]) * factor[:, None]
                tl.store(pointer, scaled.to(weight.dtype.element_ty), mask=mask)
                start += BLOCK
        first += step
