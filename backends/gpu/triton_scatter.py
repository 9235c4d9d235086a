"""Triton kernels that add upstream rows up by index.

Positions are sorted by index, and cut into *groups* of LENGTH neighbours, whatever their indices.
One walk over a group (:func:`segment_kernel`) writes the sum of each segment that lies within it.
A segment that crosses a border leaves a partial sum in each group: the *head* of every group that
it enters, and the *tail* of the group in which it begins. :func:`chain_kernel` and, for segments
of very many groups, :func:`long_chain_kernel` add those up; where groups are few one launch does,
:func:`chains_kernel`. Every order is fixed by the positions.
"""

# Triton's language looks like Python and is another: types are the launch's, and neither
# annotations, keyword-only parameters nor `in` can be written.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: PLR0917, PLR0915

from __future__ import annotations

from embconform.backends.gpu.triton_import import tl, triton
from embconform.backends.gpu.triton_kernels import wait_for_turn


@triton.jit
def _keys(pointer, own, left, KEY: tl.constexpr, NEVER: tl.constexpr):
    """Load as many indices as are left; NEVER, which is below nothing, in place of the others."""
    inside = own < left
    return tl.where(inside, tl.load(pointer, mask=inside, other=0).to(KEY), NEVER)


@triton.jit
def _add_below(
    before,
    indices,
    bound,
    first,
    last,
    KEY: tl.constexpr,
    NEVER: tl.constexpr,
    OTHERS: tl.constexpr,
):
    """Count which of the indices from `first` to `last` are below each bound.

    Counts are float32, whose additions have a pipe of their own, and stay apart until the end:
    (bounds, OTHERS) of them. Four loads are in flight while those of a turn before are compared.
    """
    bound = bound[:, None]
    own = tl.arange(0, OTHERS)
    pointer = indices + first + own
    left = last - first
    key0 = _keys(pointer, own, left, KEY, NEVER)
    key1 = _keys(pointer + OTHERS, own, left - OTHERS, KEY, NEVER)
    key2 = _keys(pointer + 2 * OTHERS, own, left - 2 * OTHERS, KEY, NEVER)
    key3 = _keys(pointer + 3 * OTHERS, own, left - 3 * OTHERS, KEY, NEVER)
    while left > 0:
        pointer += 4 * OTHERS
        left -= 4 * OTHERS
        next0 = _keys(pointer, own, left, KEY, NEVER)
        next1 = _keys(pointer + OTHERS, own, left - OTHERS, KEY, NEVER)
        next2 = _keys(pointer + 2 * OTHERS, own, left - 2 * OTHERS, KEY, NEVER)
        next3 = _keys(pointer + 3 * OTHERS, own, left - 3 * OTHERS, KEY, NEVER)
        before = tl.where(key0[None, :] < bound, before + 1, before)
        before = tl.where(key1[None, :] < bound, before + 1, before)
        before = tl.where(key2[None, :] < bound, before + 1, before)
        before = tl.where(key3[None, :] < bound, before + 1, before)
        key0 = next0
        key1 = next1
        key2 = next2
        key3 = next3
    return before


@triton.jit
def _rank(
    indices,
    keys,
    positions,
    count,
    KEY: tl.constexpr,
    NEVER: tl.constexpr,
    MINE: tl.constexpr,
    OTHERS: tl.constexpr,
):
    """Count for MINE indices how many come before each, and put them there.

    Of equal indices those at lower positions come before: in the blocks of OTHERS positions to the
    left of this program's one these are all, and none in those to the right.
    """
    first = tl.program_id(0) * MINE
    place = first + tl.arange(0, MINE)
    index = tl.load(indices + place, mask=place < count, other=0)
    mine = index.to(KEY)
    here = first // OTHERS * OTHERS
    own = tl.arange(0, OTHERS)
    key = _keys(indices + here + own, own, count - here, KEY, NEVER)[None, :]
    earlier = (here + own)[None, :] < place[:, None]
    before = (key < mine[:, None]) | ((key == mine[:, None]) & earlier)
    before = before.to(tl.float32)
    before = _add_below(before, indices, mine + 1, 0, here, KEY, NEVER, OTHERS)
    before = _add_below(before, indices, mine, here + OTHERS, count, KEY, NEVER, OTHERS)
    rank = tl.sum(before.to(tl.int32), 1)
    tl.store(keys + rank, index.to(keys.dtype.element_ty), mask=place < count)
    tl.store(positions + rank, place.to(positions.dtype.element_ty), mask=place < count)


@triton.jit
def _clear(out, block, total, CLEARED: tl.constexpr):
    """Write zeros to a block of CLEARED elements, or what there is of it."""
    start = block.to(tl.int64) * CLEARED
    if start + CLEARED <= total:  # without a mask, which would make accesses narrow
        tl.store(out + start + tl.arange(0, CLEARED), tl.zeros([CLEARED], out.dtype.element_ty))
    else:
        own = tl.arange(0, CLEARED // 16)  # in turns: code that is read once costs time, too
        zero = tl.zeros([CLEARED // 16], out.dtype.element_ty)
        while start < total:
            tl.store(out + start + own, zero, mask=start + own < total)
            start += CLEARED // 16


@triton.jit(do_not_specialize=["count", "total", "rankers"])
def rank_kernel(
    indices,
    keys,
    positions,
    out,
    count,
    total,
    rankers,
    KEY: tl.constexpr,
    NEVER: tl.constexpr,
    MINE: tl.constexpr,
    OTHERS: tl.constexpr,
    CLEARED: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Sort a few indices, stably, by counting for each how many come before it; clear `out`.

    The first programs, `rankers`, read all indices each, from L1 mostly, and write keys and
    positions. They compare all pairs: count**2 comparisons cost less than the launches of a radix
    sort up to some thousands. The others write zeros to the `total` elements of `out` meanwhile.
    KEY is a type that holds each index and one more, and NEVER the largest number of it.
    """
    wait_for_turn(EARLY)
    if tl.program_id(0) < rankers:
        _rank(indices, keys, positions, count, KEY, NEVER, MINE, OTHERS)
    else:
        _clear(out, tl.program_id(0) - rankers, total, CLEARED)


@triton.jit(do_not_specialize=["count", "units", "row_stride", "unit_stride", "padding"])
def accumulate_kernel(
    upstream,
    indices,
    total,
    count,
    units,
    row_stride,
    unit_stride,
    padding,
    LANES: tl.constexpr,
    UNITS: tl.constexpr,
):
    """Add rows to `total` by atomic additions, in whatever order.

    Reads each index and each upstream row once, and reads and writes a row of `total`, mostly in
    L2, for each. Subnormal numbers count as 0 in float32.
    """
    start = tl.program_id(0).to(tl.int64) * UNITS
    first = start // units
    flat = (start - first * units).to(tl.int32) + tl.arange(0, UNITS)
    place = first + flat // units
    unit = (flat % units).to(tl.int64)
    index = tl.load(indices + place, mask=place < count, other=0).to(tl.int64)
    live = ((place < count) & (index != padding))[:, None]
    lane = tl.arange(0, LANES)[None, :]
    source = (place * row_stride + unit * unit_stride)[:, None] * LANES + lane
    value = tl.load(upstream + source, mask=live, other=0).to(total.dtype.element_ty)
    target = (index * units + unit)[:, None] * LANES + lane
    tl.atomic_add(total + target, value, mask=live, sem="relaxed")


@triton.jit
def _key(keys, place, mask, KEY_OFFSET: tl.constexpr, INDEX: tl.constexpr):
    """Load sorted indices; -1 where masked, which no index is."""
    key = tl.load(keys + place, mask=mask, other=0).to(INDEX) + KEY_OFFSET
    return tl.where(mask, key, -1)


@triton.jit
def _mean(total, number):
    """Divide, rounded to nearest: Triton's own division of float32 is not."""
    if total.dtype == tl.float64:
        mean = total / number.to(total.dtype)
    else:
        mean = tl.div_rn(total, number.to(total.dtype))
    return mean


@triton.jit
def _row(upstream, source, position, row_stride, live):
    """Load a unit of a row for each thread's place."""
    pointer = upstream + (source + (position.to(tl.int64) * row_stride)[:, None])
    return tl.load(pointer, mask=live[:, None], other=0)


@triton.jit
def _add(
    state,
    row,
    key,
    following,
    place,
    end,
    group,
    targets,
    target,
    groups,
    width,
    BY_FREQUENCY: tl.constexpr,
):
    """Add a row to each group's open segment, and write the sums of those that close here."""
    total, number, entered = state
    out, partial, numbers = targets
    total += row.to(total.dtype)
    number += 1
    ends = key != following
    closes = (place < end) & (ends | (place == end - 1))
    if tl.max(closes.to(tl.int32), 0) > 0:
        whole = closes & ends & (entered == 0)
        value = total
        if BY_FREQUENCY:
            value = _mean(total, number[:, None])
        pointer = out + ((key.to(tl.int64) * width)[:, None] + target)
        tl.store(pointer, value.to(out.dtype.element_ty), mask=whole[:, None])
        part = closes & (whole == 0)
        if tl.max(part.to(tl.int32), 0) > 0:
            slot = tl.where(entered, group, group + groups)
            where = partial + ((slot.to(tl.int64) * width)[:, None] + target)
            tl.store(where, total, mask=part[:, None])
            if BY_FREQUENCY:
                tl.store(numbers + slot, number, mask=part)
        total = tl.where(closes[:, None], 0.0, total)
        number = tl.where(closes, 0, number)
        entered = entered & ((closes & ends) == 0)
    return total, number, entered


@triton.jit(
    do_not_specialize=[
        "count",
        "groups",
        "length",
        "blocks",
        "units",
        "row_stride",
        "unit_stride",
        "padding",
    ]
)
def segment_kernel(
    upstream,
    keys,
    positions,
    out,
    partial,
    numbers,
    found,
    count,
    groups,
    length,
    blocks,
    units,
    row_stride,
    unit_stride,
    padding,
    KEY_OFFSET: tl.constexpr,
    INDEX: tl.constexpr,
    LANES: tl.constexpr,
    GROUPS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BY_FREQUENCY: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Walk over GROUPS groups side by side, COLUMNS units wide.

    Reads keys, positions and each upstream row that is not padding once; writes each row of `out`
    whose segment lies within a group, and at most two partial sums a group. One warp a program, so
    that the branch at the end of a segment is taken by nobody else; four rows are in flight, and
    their keys and positions were loaded a turn before.
    """
    wait_for_turn(EARLY)
    own = tl.arange(0, GROUPS * COLUMNS)
    unit = (tl.program_id(0) % blocks) * COLUMNS + own % COLUMNS
    group = (tl.program_id(0) // blocks).to(INDEX) * GROUPS + own // COLUMNS
    width = units * LANES
    start = group * length
    end = tl.where(unit < units, tl.minimum(start + length, count), start)
    if tl.program_id(0) == 0:
        tl.store(found, 0)  # for chain_kernel
    lane = tl.arange(0, LANES)[None, :]
    source = (unit.to(tl.int64) * unit_stride)[:, None] * LANES + lane
    target = unit[:, None] * LANES + lane
    stride = row_stride.to(tl.int64) * LANES

    key0 = _key(keys, start, start < count, KEY_OFFSET, INDEX)
    key1 = _key(keys, start + 1, start + 1 < count, KEY_OFFSET, INDEX)
    key2 = _key(keys, start + 2, start + 2 < count, KEY_OFFSET, INDEX)
    key3 = _key(keys, start + 3, start + 3 < count, KEY_OFFSET, INDEX)
    key4 = _key(keys, start + 4, start + 4 < count, KEY_OFFSET, INDEX)
    position0 = tl.load(positions + start, mask=start < end, other=0).to(INDEX)
    position1 = tl.load(positions + start + 1, mask=start + 1 < end, other=0).to(INDEX)
    position2 = tl.load(positions + start + 2, mask=start + 2 < end, other=0).to(INDEX)
    position3 = tl.load(positions + start + 3, mask=start + 3 < end, other=0).to(INDEX)
    previous = _key(keys, start - 1, (start > 0) & (start <= count), KEY_OFFSET, INDEX)
    total = tl.zeros([GROUPS * COLUMNS, LANES], partial.dtype.element_ty)
    state = (total, tl.zeros([GROUPS * COLUMNS], tl.int32), previous == key0)
    targets = (out, partial, numbers)
    step = 0
    while step < length:
        at = start + step
        live = (at < end) & (key0 != padding)
        row0 = _row(upstream, source, position0, stride, live)
        live = (at + 1 < end) & (key1 != padding)
        row1 = _row(upstream, source, position1, stride, live)
        live = (at + 2 < end) & (key2 != padding)
        row2 = _row(upstream, source, position2, stride, live)
        live = (at + 3 < end) & (key3 != padding)
        row3 = _row(upstream, source, position3, stride, live)
        key5 = _key(keys, at + 5, at + 5 < count, KEY_OFFSET, INDEX)
        key6 = _key(keys, at + 6, at + 6 < count, KEY_OFFSET, INDEX)
        key7 = _key(keys, at + 7, at + 7 < count, KEY_OFFSET, INDEX)
        key8 = _key(keys, at + 8, at + 8 < count, KEY_OFFSET, INDEX)
        position0 = tl.load(positions + at + 4, mask=at + 4 < end, other=0).to(INDEX)
        position1 = tl.load(positions + at + 5, mask=at + 5 < end, other=0).to(INDEX)
        position2 = tl.load(positions + at + 6, mask=at + 6 < end, other=0).to(INDEX)
        position3 = tl.load(positions + at + 7, mask=at + 7 < end, other=0).to(INDEX)
        state = _add(
            state, row0, key0, key1, at, end, group, targets, target, groups,
            width, BY_FREQUENCY,
        )  # fmt: skip
        state = _add(
            state, row1, key1, key2, at + 1, end, group, targets, target, groups,
            width, BY_FREQUENCY,
        )  # fmt: skip
        state = _add(
            state, row2, key2, key3, at + 2, end, group, targets, target, groups,
            width, BY_FREQUENCY,
        )  # fmt: skip
        state = _add(
            state, row3, key3, key4, at + 3, end, group, targets, target, groups,
            width, BY_FREQUENCY,
        )  # fmt: skip
        key0 = key4
        key1 = key5
        key2 = key6
        key3 = key7
        key4 = key8
        step += 4


@triton.jit
def _chain_start(keys, group, count, length, KEY_OFFSET: tl.constexpr):
    """Tell whether a segment begins in a group and crosses its end; with its index."""
    start = group * length
    end = tl.minimum(start + length, count)
    key = _key(keys, end - 1, end > 0, KEY_OFFSET, tl.int64)
    crosses = _key(keys, end, end < count, KEY_OFFSET, tl.int64) == key
    entered = _key(keys, start - 1, start > 0, KEY_OFFSET, tl.int64) == key
    return crosses & (entered == 0), key


@triton.jit
def _short_chain(
    keys,
    partial,
    numbers,
    out,
    group,
    column,
    count,
    groups,
    length,
    width,
    KEY_OFFSET: tl.constexpr,
    AT_ONCE: tl.constexpr,
    LONGEST: tl.constexpr,
    BY_FREQUENCY: tl.constexpr,
):
    """Add up the partial sums of a segment that begins in a group and enters others.

    Returns how many it enters, at most LONGEST; those that enter so many are left.
    """
    inside = column < width
    starts, key = _chain_start(keys, group, count, length, KEY_OFFSET)
    links = 0
    if starts:
        entered = group + 1 + tl.arange(0, LONGEST)
        linked = _key(keys, entered * length, entered < groups, KEY_OFFSET, tl.int64) == key
        links = tl.sum(linked.to(tl.int32), 0)
        if links < LONGEST:
            tail = group + groups
            total = tl.load(partial + tail * width + column, mask=inside, other=0)
            link = 0
            while link < links:
                beside = link + tl.arange(0, AT_ONCE)
                head = group + 1 + beside
                pointer = partial + (head * width)[:, None] + column[None, :]
                mask = (beside < links)[:, None] & inside[None, :]
                total += tl.sum(tl.load(pointer, mask=mask, other=0), 0)
                link += AT_ONCE
            if BY_FREQUENCY:
                number = tl.sum(tl.load(numbers + entered, mask=linked, other=0), 0)
                total = _mean(total, number + tl.load(numbers + tail))
            tl.store(out + key * width + column, total.to(out.dtype.element_ty), mask=inside)
    return links


@triton.jit
def _long_chain(
    keys,
    partial,
    numbers,
    out,
    group,
    column,
    count,
    groups,
    length,
    width,
    KEY_OFFSET: tl.constexpr,
    AT_ONCE: tl.constexpr,
    BY_FREQUENCY: tl.constexpr,
):
    """Add up the partial sums of a segment that begins in a group and enters very many.

    Reads AT_ONCE rows at a time of a few columns.
    """
    inside = column < width
    starts, key = _chain_start(keys, group, count, length, KEY_OFFSET)
    tail = group + groups
    total = tl.zeros([AT_ONCE, column.shape[0]], partial.dtype.element_ty)
    number = tl.zeros([AT_ONCE], tl.int32)
    head = group + 1 + tl.arange(0, AT_ONCE)
    more = starts
    while more:
        linked = _key(keys, head * length, head < groups, KEY_OFFSET, tl.int64) == key
        pointer = partial + (head * width)[:, None] + column[None, :]
        mask = linked[:, None] & inside[None, :]
        total += tl.load(pointer, mask=mask, other=0)
        if BY_FREQUENCY:
            number += tl.load(numbers + head, mask=linked, other=0)
        head += AT_ONCE
        more = tl.min(linked.to(tl.int32), 0) > 0
    whole = tl.sum(total, 0) + tl.load(partial + tail * width + column, mask=inside, other=0)
    if BY_FREQUENCY:
        whole = _mean(whole, tl.sum(number, 0) + tl.load(numbers + tail))
    tl.store(out + key * width + column, whole.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _find_long_chain(
    keys,
    partial,
    numbers,
    out,
    entered,
    column,
    count,
    groups,
    length,
    width,
    KEY_OFFSET: tl.constexpr,
    AT_ONCE: tl.constexpr,
    LONGEST: tl.constexpr,
    BY_FREQUENCY: tl.constexpr,
):
    """Add up a segment that enters a group, began at most LONGEST before, and enters so many."""
    key = _key(keys, entered * length, entered < groups, KEY_OFFSET, tl.int64)
    border = (entered - tl.arange(0, LONGEST)) * length
    crossed = _key(keys, border - 1, border > 0, KEY_OFFSET, tl.int64) == key
    links = tl.sum(crossed.to(tl.int32), 0)
    group = entered - links
    starts, _ = _chain_start(keys, group, count, length, KEY_OFFSET)
    on = group + LONGEST
    goes_on = _key(keys, on * length, on < groups, KEY_OFFSET, tl.int64) == key
    if (links > 0) & starts & goes_on:
        _long_chain(
            keys, partial, numbers, out, group, column, count, groups, length, width,
            KEY_OFFSET, AT_ONCE, BY_FREQUENCY,
        )  # fmt: skip


@triton.jit(
    do_not_specialize=[
        "count",
        "groups",
        "length",
        "searchers",
        "long_blocks",
        "blocks",
        "width",
    ]
)
def chains_kernel(
    keys,
    partial,
    numbers,
    out,
    count,
    groups,
    length,
    searchers,
    long_blocks,
    blocks,
    width,
    KEY_OFFSET: tl.constexpr,
    COLUMNS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    LONG_COLUMNS: tl.constexpr,
    LONG_AT_ONCE: tl.constexpr,
    LONGEST: tl.constexpr,
    BY_FREQUENCY: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Add up the partial sums of every segment that crosses a border, where groups are few.

    Reads some keys, and the partial sums; writes a row of `out` for each segment. A segment that
    enters LONGEST groups or more enters one of every LONGEST: the first programs, `searchers`, look
    there.
    """
    wait_for_turn(EARLY)
    program = tl.program_id(0)
    if program < searchers:
        column = program % long_blocks * LONG_COLUMNS + tl.arange(0, LONG_COLUMNS)
        entered = ((program // long_blocks + 1) * LONGEST).to(tl.int64)
        _find_long_chain(
            keys, partial, numbers, out, entered, column, count, groups, length, width,
            KEY_OFFSET, LONG_AT_ONCE, LONGEST, BY_FREQUENCY,
        )  # fmt: skip
    else:
        group = ((program - searchers) // blocks).to(tl.int64)
        columns = (program - searchers) % blocks * COLUMNS + tl.arange(0, COLUMNS)
        _short_chain(
            keys, partial, numbers, out, group, columns, count, groups, length, width,
            KEY_OFFSET, AT_ONCE, LONGEST, BY_FREQUENCY,
        )  # fmt: skip


@triton.jit(do_not_specialize=["count", "groups", "length", "blocks", "width"])
def chain_kernel(
    keys,
    partial,
    numbers,
    out,
    found,
    chains,
    count,
    groups,
    length,
    blocks,
    width,
    KEY_OFFSET: tl.constexpr,
    COLUMNS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    LONGEST: tl.constexpr,
    BY_FREQUENCY: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Add up the partial sums of a segment that begins in this program's group and leaves it.

    Reads a few keys, and the partial sums; writes a row of `out`. A segment that enters LONGEST
    groups or more is put on the list `chains` instead.
    """
    wait_for_turn(EARLY)
    group = (tl.program_id(0) // blocks).to(tl.int64)
    column = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    links = _short_chain(
        keys, partial, numbers, out, group, column, count, groups, length, width,
        KEY_OFFSET, AT_ONCE, LONGEST, BY_FREQUENCY,
    )  # fmt: skip
    if (links == LONGEST) & (tl.program_id(0) % blocks == 0):
        tl.store(chains + tl.atomic_add(found, 1, sem="relaxed"), group)


@triton.jit(do_not_specialize=["count", "groups", "length", "blocks", "width"])
def long_chain_kernel(
    keys,
    partial,
    numbers,
    out,
    found,
    chains,
    count,
    groups,
    length,
    blocks,
    width,
    KEY_OFFSET: tl.constexpr,
    COLUMNS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    BY_FREQUENCY: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Add up the partial sums of the segments on the list: few, but of very many groups.

    Reads the partial sums; writes a row of `out` for each.
    """
    wait_for_turn(EARLY)
    item = tl.program_id(0)
    while item < tl.load(found) * blocks:
        group = tl.load(chains + item // blocks)
        column = (item % blocks) * COLUMNS + tl.arange(0, COLUMNS)
        _long_chain(
            keys, partial, numbers, out, group, column, count, groups, length, width,
            KEY_OFFSET, AT_ONCE, BY_FREQUENCY,
        )  # fmt: skip
        item += tl.num_programs(0)
