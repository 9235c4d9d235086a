"""Draw a case from a stratum with Hypothesis: sizes, indices, seeds of values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from embconform.conformance.cases.case import (
    Call,
    Case,
    Placed,
    Step,
)
from embconform.conformance.cases.fills import TABLE_FILLS, UPSTREAM_FILLS
from embconform.conformance.cases.layouts import repeated, without_repeats
from embconform.conformance.cases.near import near
from embconform.conformance.cases.one_shape import NONE, index_shape, table_shape
from embconform.conformance.cases.option_draws import draw_options
from embconform.conformance.cases.patterns import (
    IN_EACH,
    ORDERS,
    PATTERNS,
    filled_up,
    ordered,
    sprinkled,
)
from embconform.conformance.cases.programs import EITHER, Draw, Programs, among, between
from embconform.conformance.cases.structure import MIXED, Structure, is_counted
from embconform.conformance.cases.wandering import Wandering
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, format_of
from embconform.reference.oracle import Options

T = TypeVar("T")
Ids = NDArray[np.int64]

COUNTS: Final = (31, 32, 33, 64, 128, 255, 256, 257, 768, 769, 1000, 1001, 1024, 1025, 3072, 3073)
WIDTHS: Final = (31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025)
WIDEST: Final = (1025, 1024, 2500, 4101)
MOST: Final = (3073, 1025)
HEIGHTS: Final = (70_001, 65_537, 40_001, 65_536)
LONGEST: Final = (12_300, 24_601)
"""More columns than 48 KiB hold, of four bytes and of two."""
TOWERING: Final = (600_001,)
"""More rows than 32 bits number beside the places of 4,100 indices, in whatever way."""
POPULOUS: Final = (40_001, 13_001, 65_537, 5_003)
TILE: Final = (16, 32, 64)
APART: Final = (400, 1_200, 70_001)
HOT: Final = (5_000, 5_000, 5_000, 100_000)
CROWD: Final = (5_000,)
VAST: Final = (66_001, 65_537)
FAR: Final = (2**32 + 3, 2**40, 2**62, 2**33 + 1)
MARKERS: Final = (-100, -100, -(2**31))
"""What stands for no index: the one that losses ignore, and the least of 32 bits."""
MATRIX: Final = 2
"""Dimensions of a batch of sequences."""
LANES: Final = 4
"""Indices of a crowd that an unrolled loop takes at once."""
FAR_BELOW: Final = (-(2**63), -(2**40), -(2**32) - 1)
VECTORS: Final = (4, 8, 12, 16, 20, 24)
_WIDE: Final = {"wide": WIDTHS, "widest": WIDEST, "longest": LONGEST, "tiles": TILE}
_HIGH: Final = {"tall": HEIGHTS, "towering": TOWERING, "apart": APART, "populous": POPULOUS}
_COUNTS: Final = {
    "many": COUNTS,
    "most": MOST,
    "vast": VAST,
    "hot": HOT,
    "crowd": CROWD,
    "tiles": TILE,
    "towering": (4_100,),
    "populous": (300, 1_025),
    "ranked": (129, 257, 1_025, 3_073),
}
_MANY_KINDS: Final = ("cyclic", "lone", "uniform", "lone", "skewed", "equal", "top", "edges")
_MIXED_KINDS: Final = (
    *("uniform", "distinct", "lone", "runs", "swapped", "few"),
    *("skewed", "top", "cyclic", "equal", "distinct", "uniform", "edges", "alike"),
)
_KINDS: Final = {
    "tall": ("top", "uniform", "edges", "alike"),
    "rows": ("top", "uniform", "edges", "alike"),
    "populous": ("hot", "uniform", "skewed", "top", "alike", "lone"),
    "equal": ("equal", "hot"),
    "output": _MIXED_KINDS,
    "table": _MIXED_KINDS,
    "hot": ("hot",),
    "tiles": ("uniform", "cyclic", "distinct"),
    "towering": ("brink", "uniform"),
    "apart": ("apart",),
    "paced": ("falling", "paced", "mirrored", "doubled"),
}
_ORDERS: Final = {
    "hot": ORDERS[:1],
    "paced": ORDERS[:1],
    "ranked": ("rising", IN_EACH),
    "apart": ("as they are", "as they are", "falling"),
}


SEEDS: Final = between(0, 99)


def draw_case(
    draw: Draw,
    structure: Structure,
    profile: Profile,
    *,
    salt: int = 0,
    compiled: bool = False,
    one_shape: bool = False,
) -> Case:
    """Draw a case from a stratum.

    Shrinks towards few indices, few rows, few columns and readable values.

    Parameters
    ----------
    draw : callable
        Hypothesis's, of a composite strategy.
    structure : Structure
    profile : Profile
    salt : int
        Makes the random values of one run differ from those of another.
    compiled : bool
        Draw no size of 0 or 1 unless the stratum is about it, and one value of max_norm only:
        compilers specialise on those.
    one_shape : bool
        Draw no size and no padding_idx at all: each structure has its own.

    Returns
    -------
    Case
    """
    least = 2 if compiled else 1
    random, count = _Seeds(draw, salt), 0
    if one_shape:
        rows, width = table_shape(structure)
    elif one := near(structure.size):
        rows, width, count = one.shape(draw, structure, least)
    else:
        rows, width = _draw_table_shape(draw, structure, least)
    table = _draw_table(random, structure, rows, width)
    options = draw_options(draw, structure, table, compiled=compiled, one_shape=one_shape)
    build = _Builder(
        draw,
        random=random,
        structure=structure,
        options=options,
        table=table,
        least=least,
        one_shape=one_shape,
        count=count,
    )
    match structure.program:
        case "error":
            steps = build.fault()
        case "wandering":
            steps = Wandering(build, Call(build.indices())).draw()
        case _:
            steps = build.program()
    return Case(
        stratum=structure.name,
        profile=profile,
        weight=Placed(build.table, structure.weight_layout),
        options=build.options,
        mode=structure.mode,
        entry=structure.entry,
        steps=steps,
        deterministic=structure.deterministic,
    )


def _draw_table_shape(draw: Draw, s: Structure, least: int) -> tuple[int, int]:
    if s.size in _WIDE:
        return draw(between(least, 4)), draw(among(_WIDE[s.size]))
    if s.size in _HIGH:
        return draw(among(_HIGH[s.size])), draw(between(least, 2))
    match s.size:
        case "paced":
            return draw(between(12, 60)), draw(between(8, 24))
        case "no-columns" | "one-column":
            return draw(between(least, 5)), int(s.size == "one-column")
        case "no-rows":
            return 0, draw(between(least, 3))
        case "some":  # vectors of four are loaded where the width allows
            vectors = among(VECTORS) if draw(EITHER) else between(least, 24)
            return draw(between(least, 24)), draw(vectors)
        case "block":
            rows, most = _log(draw, 2, 3_000), 60_000
            width = _log(draw, 5, 150) if draw(EITHER) else 150
            return rows, min(width, max(most // rows, 1))
        case "many" | "most" | "ranked" if draw(EITHER):  # more distinct rows than a byte counts
            return draw(between(260, 700)), draw(between(least, 4))
        case "many" | "most" | "hot" | "vast" | "ranked":
            return draw(between(_least_rows(s, least), 40)), draw(between(least, 4))
    widths = among(VECTORS[:3]) if s.fault == "far-offset" else between(least, 5)
    return draw(between(_least_rows(s, least), 6)), draw(widths)


def _least_rows(s: Structure, least: int) -> int:
    if s.size == "vast" and s.bound != "none":  # the last ones exceed the bound
        return 20
    if s.fault.startswith("far"):
        return 4
    return max(least, 1 + (s.padding != "none"))  # beside padding there is another row


def _log(draw: Draw, low: int, high: int) -> int:
    """Draw a size between the thresholds, small ones as often as large ones, of any residue."""
    steps = 60
    size = low * (high / low) ** (draw(between(0, steps)) / steps)
    return int(size) + int(draw(between(0, 7)))


def _kinds_of(s: Structure) -> tuple[str, ...]:
    """List the patterns that a structure's many indices may follow."""
    match s.size:
        case "tall" if s.gradient.endswith("scaled"):  # what is counted, by a part of the index
            return ("alike",) if s.rank < MATRIX else ("mirrored",)
        case "tall" if s.bound != "none":  # what is bounded is marked by a part of the index
            return ("alike",)
        case "most" if s.gradient == "sparse":  # what fills a gradient up has rows of its own
            return ("inner", *_MANY_KINDS, "top")
        case "vast" if s.bound != "none":  # what is bounded is bounded where it is named first
            return ("late",)
    if s.size in MIXED:
        return _MIXED_KINDS
    one = near(s.size)
    return _KINDS.get(one.axis if one else s.size, _MANY_KINDS)


class _Seeds:
    """Draws seeds for values; 0, the simplest, stays 0."""

    def __init__(self, draw: Draw, salt: int) -> None:
        self.draw, self.salt = draw, salt

    def __call__(self) -> int:
        drawn: int = self.draw(SEEDS)
        return drawn and self.salt * 100 + drawn


def _draw_table(random: Callable[[], int], s: Structure, rows: int, width: int) -> Array:
    shape = without_repeats(s.weight_layout, (rows, width))
    values = TABLE_FILLS[s.table](shape, s.dtype, random())
    return repeated(s.weight_layout, values, (rows, width)).copy()


class _Builder(Programs):
    """Draws the steps of one case."""

    def __init__(
        self,
        draw: Draw,
        *,
        random: _Seeds,
        structure: Structure,
        options: Options,
        table: Array,
        least: int,
        one_shape: bool,
        count: int,
    ) -> None:
        self.draw, self.random, self.least, self.one_shape = draw, random, least, one_shape
        self.count = count
        self.s, self.options, self.table = structure, options, table
        self.rows, self.width = table.shape

    def fresh_table(self) -> Array:
        """Draw the values of another table of this shape."""
        return _draw_table(self.random, self.s, self.rows, self.width)

    def shape(self) -> tuple[int, ...]:
        """Draw the shape of the indices, or give the one that there is."""
        return index_shape(self.s) if self.one_shape else self._drawn_shape()

    def _drawn_shape(self) -> tuple[int, ...]:
        s, draw = self.s, self.draw
        if s.size in ("no-indices", "no-rows"):
            return NONE.get(s.rank, (0,))
        if self.count:
            return self._near_shape()
        if is_counted(s.size):
            return self._counted_shape()
        if s.size == "some":
            most = {1: (36,), 2: (6, 8), 3: (3, 4, 4), 4: (2, 3, 4, 2)}.get(s.rank, ())
            return tuple(draw(between(self.least, length)) for length in most)
        if s.size == "paced" and s.rank == 1:
            return (draw(between(6, 12)),)
        if s.size == "tall" and s.rank == MATRIX and s.gradient.endswith("scaled"):
            return (2, draw(between(1_000, 1_500)))
        if s.size == "apart" and s.rank == 1:
            return (draw(between(4, 9)),)
        if s.size == "block" and s.rank:
            count = min(_log(draw, 20, 1_100), max(40_000 // self.width, 20))
            inner = (draw(between(2, 9)), 2, 3)[: s.rank - 1]
            return (max(count // math.prod(inner), self.least), *inner)
        if s.rank == 1:  # beside padding there is room for another index
            least = max(self.least, 1 + (s.padding != "none"))
            return (draw(between(least, 6)),)
        return tuple(draw(between(self.least, 3)) for _ in range(s.rank))

    def _counted_shape(self) -> tuple[int, ...]:
        count = self.draw(among(_COUNTS[self.s.size]))
        if self.s.rank == 1:
            return (count,)
        lead = (1,) * (self.s.rank - MATRIX)
        if self.s.size == "vast":  # more rows of indices than a grid has
            return (*lead, count, 1)
        return (*lead, self.draw(between(2, 4)), count)

    def _near_shape(self) -> tuple[int, ...]:
        """Spread a number of indices over the dimensions, or let the last one have it."""
        if self.s.rank == 0:
            return ()
        if self.s.rank == 1:
            return (self.count,)
        lead = (1,) * (self.s.rank - MATRIX)
        if self.s.size.startswith("equal"):
            return (*lead, 1, self.count)
        if self.draw(EITHER):
            return (*lead, self.draw(between(2, 3)), self.count)
        batch = self.draw(between(2, 8))
        return (*lead, batch, max(-(-self.count // batch), self.least))

    def indices(self, shape: tuple[int, ...] | None = None) -> Placed:
        """Draw legal indices."""
        shape = self.shape() if shape is None else shape
        layout = self.s.index_layout
        drawn = without_repeats(layout, shape)
        count = math.prod(drawn)
        if self.rows == 0:
            values = np.zeros(0, np.int64)
        elif self.count or is_counted(self.s.size) or self.s.size in (*MIXED, *_KINDS):
            values = self._many_ids(drawn)
        else:
            values = self._few_ids(count)
        full = repeated(layout, values.reshape(drawn), shape)
        return Placed(full.astype(self.s.index_dtype), layout)

    def _few_ids(self, count: int) -> Ids:
        padding = self.options.normalised(self.rows).padding_idx
        if padding is None or not 0 <= padding < self.rows:
            return self._free_ids(count)
        share = self.draw(among(("some", "free", "some", "all")))
        if share == "all":
            return np.full(count, padding, np.int64)
        ids = self._free_ids(count)
        return _with_padding(ids, padding, self.rows) if share == "some" and count else ids

    def _free_ids(self, count: int) -> Ids:
        """Draw any indices, rising ones, or no row twice while the rows last."""
        kind = self.draw(among(("any", "distinct", "rising", "any", "distinct")))
        left = list(range(self.rows))
        ids = []
        for _ in range(count):
            left = left or list(range(self.rows))
            place = self.draw(between(0, len(left) - 1))
            ids.append(left.pop(place) if kind == "distinct" else left[place])
        return np.array(sorted(ids) if kind == "rising" else ids, np.int64)

    def _many_ids(self, shape: tuple[int, ...]) -> Ids:
        count = math.prod(shape)
        kind = self.draw(among(_kinds_of(self.s)))
        orders = ORDERS[:1] if kind == "late" else _ORDERS.get(self.s.size, ORDERS)
        order = self.draw(among(orders))
        rng = np.random.default_rng(self.random() + 1)
        if not count:
            return np.zeros(0, np.int64)
        ids = PATTERNS[kind](count, self.rows, rng)
        padding = self.options.normalised(self.rows).padding_idx
        if padding is None or not 0 <= padding < self.rows:
            return ordered(ids, self.rows, order, shape)
        if self.s.size in MIXED:
            ids = sprinkled(ids, self.rows, padding, rng)
        ids = ordered(ids, self.rows, order, shape)
        return filled_up(ids, padding, rng) if self.s.size in ("many", "most") else ids

    def upstream(self, indices: Placed) -> Placed:
        """Draw the upstream gradient of a call's output."""
        shape = (*indices.values.shape, self.width)
        layout = self.s.upstream_layout
        drawn = without_repeats(layout, shape)
        one = UPSTREAM_FILLS[self.s.upstream](drawn, self.s.dtype, self.random())
        values = np.broadcast_to(one, shape).copy()
        if self.s.upstream == "nonfinite-padding":
            padded = indices.values == self.options.normalised(self.rows).padding_idx
            values[padded] = np.array(self.draw(among((np.inf, np.nan, -np.inf))))
        return Placed(values, layout)

    def fault(self) -> tuple[Step, ...]:
        """Draw a call that must be refused, then one that must work."""
        fault = self.s.fault
        if fault.startswith("weight"):
            shapes = {"0d": ((),), "1d": ((3,),), "3d": ((1, 3, 2), (3, 2, 2))}
            shape = self.draw(among(shapes[fault[7:]]))
            self.table = np.ones(shape, format_of(self.s.dtype).dtype)
            return (Call(Placed(np.array([0])), must_raise=True),)
        if fault.startswith("padding"):
            return (Call(self.indices(), must_raise=True),)
        if fault.startswith("index"):
            good = self.indices()
            # of bytes and truths there is one for each row: NumPy takes such for a mask
            marks = self.rows if fault in ("index-bool", "index-uint8") and self.s.rank == 1 else 0
            bad = np.resize(good.values, marks) if marks else good.values
            return self._refused_first([bad.astype(fault[6:])], good)
        good = self.indices() if self.rows else self._zeros()
        return self._refused_first(self._with_bad(good.values), good)

    def _refused_first(self, bad: list[Ids], good: Placed) -> tuple[Step, ...]:
        refused = tuple(Call(Placed(each, good.layout), must_raise=True) for each in bad)
        if self.rows == 0:
            return refused
        again = Call(good if self.draw(EITHER) else self.indices(good.values.shape))
        after: tuple[Step, ...] = (*refused, again)
        # a check that is made once for a table and a shape has been made by then
        passed = (Call(good), *after) if self.draw(EITHER) else after
        return (*passed, *self.backward(len(passed) - 1, again))

    def _with_bad(self, good: Ids) -> list[Ids]:
        """Put an index out of range in a place; among thousands in neighbouring ones, by turns."""
        faults: dict[str, Callable[[], int]] = {
            "too-large": lambda: self.rows + self.draw(among((0, 1, 7, self._last_in_bits()))),
            "negative": self._negative,
            "far-positive": lambda: self.draw(among(FAR)),
            "far-negative": lambda: self.draw(among(FAR_BELOW)),
            "far-offset": self._wrapping,
        }
        bad, size = faults[self.s.fault](), good.size
        place = self.draw(among((0, -1, size // 2)))
        lanes = LANES if self.s.size == "crowd" else 1
        found = [good.copy() for _ in range(lanes)]
        for lane, values in enumerate(found):
            values.reshape(-1)[(place + lane) % size] = bad
        return found

    def _wrapping(self) -> int:
        """Give an index whose row lies a multiple of 2**64 elements beyond one of the table's."""
        return int(2**64 // (self.width & -self.width) + self.draw(between(0, self.rows - 1)))

    def _last_in_bits(self) -> int:
        """Count from the number of rows to the last number of as many bits as an index has."""
        rows: int = self.rows
        return max((1 << max(rows - 1, 0).bit_length()) - 1 - rows, 0)

    def _negative(self) -> int:
        padding = self.options.padding_idx
        if padding is not None and padding < 0 and self.draw(EITHER):
            return padding
        if self.draw(between(0, 2)) == 2:
            return int(self.draw(among(MARKERS)))
        return -int(self.draw(between(1, self.rows + 1)))

    def _zeros(self) -> Placed:
        shape = {0: (), 1: (2,), 2: (2, 2)}.get(self.s.rank, (2, 1, 2))
        return Placed(np.zeros(shape, self.s.index_dtype), self.s.index_layout)


def _with_padding(ids: Ids, padding: int, rows: int) -> Ids:
    """Name padding in the middle, and another row before it; distinct indices stay so."""
    middle = len(ids) // 2
    if padding in ids:
        place = int(np.argmax(ids == padding))
        ids[[place, middle]] = ids[[middle, place]]
    ids[middle] = padding
    if middle and ids[0] == padding:
        ids[0] = (padding + 1) % rows
    return ids
