"""The structure of a call: one value for each factor, and the values that factors take."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Final, Literal, get_args

from embconform.conformance.cases.case import Entry, GradMode, Layout

Program = Literal[
    "single",
    "repeat",
    "accumulate",
    "retain",
    "two-uses",
    "update-weight",
    "update-indices",
    "stale-backward",
    "double-backward",
    "served",
    "steps",
    "wandering",
    "error",
]


@dataclass(frozen=True, order=True)
class Structure:
    """One value for each factor; the defaults are the plainest call."""

    program: Program = "single"
    fault: str = "none"
    entry: Entry = "functional"
    dtype: str = "float32"
    index_dtype: str = "int64"
    rank: int = 1
    size: str = "tiny"
    weight_layout: Layout = "contiguous"
    index_layout: Layout = "contiguous"
    upstream_layout: Layout = "contiguous"
    padding: str = "none"
    bound: str = "none"
    gradient: str = "dense"
    mode: GradMode = "grad"
    table: str = "plain"
    upstream: str = "units"
    deterministic: bool = False

    @cached_property
    def name(self) -> str:
        """The factors that are not at their plainest, as ``factor=value``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = [f"{key}={v}" for key, v in values.items() if v != getattr(PLAIN, key)]
        return " ".join(parts) or "plain"

    def through(self, entry: Entry) -> Structure:
        """Give the same through an entry point; itself where that is its own."""
        return self if self.entry == entry else replace(self, entry=entry)


PLAIN: Final = Structure()
_IN_NO_PAIRS: Final = (
    *("swapped", "windows", "rows", "columns"),
    *("pooled", "paired", "uneven", "split"),
)
WEIGHT_LAYOUTS: Final[tuple[Layout, ...]] = tuple(
    one for one in get_args(Layout) if one not in _IN_NO_PAIRS
)
ROW_SLICE: Final[Layout] = "rows"
"""A layout of tables that takes no part in the pairs: it differs from offset by where it starts."""
COLUMN_SLICE: Final[Layout] = "columns"
"""Another one: the first columns of a wider table, which is sliced, but at its base's start."""
UNEVEN: Final[Layout] = "uneven"
"""Another one: like columns, but with rows an odd number of elements apart."""
OVERLAPPING: Final[Layout] = "windows"
"""Another one: each row of a table starts within the row before."""
POOLED: Final[Layout] = "pooled"
"""A layout of upstream gradients that takes no part in the pairs: only many indices tell it."""
PAIRED: Final[Layout] = "paired"
"""Another one: it differs from stepped by where it starts, at an even address, as real parts do."""
INDEX_LAYOUTS: Final = (*WEIGHT_LAYOUTS, "swapped", "windows")
UPSTREAM_LAYOUTS: Final[tuple[Layout, ...]] = (
    *(one for one in WEIGHT_LAYOUTS if one != "offset"),
    "swapped",
    "split",
)
BOUNDS: Final = ("none", "p2", "p1", "p0.5", "p3", "pinf", "p1.5", "p2.5", "zero")
PADDINGS: Final = ("none", "zero", "inner", "last", "negative")
EMPTY: Final = ("no-indices", "no-columns", "no-rows")
BACKWARD_ONLY: Final = (
    "accumulate",
    "retain",
    "two-uses",
    "stale-backward",
    "double-backward",
    "served",
    "steps",
)
OUT_OF_RANGE: Final = ("too-large", "negative", "far-positive", "far-negative", "far-offset")
"""Faults of the indices' values, which a device may find only when it is too late."""
COUNTED: Final = (
    *("many", "most", "hot", "crowd", "vast"),
    *("tiles", "towering", "populous", "ranked"),
)
MIXED: Final = ("some", "block")
"""Sizes that lie anywhere between the thresholds, indices, rows and columns at once."""
NEAR: Final = "-near-"
"""What stands in the name of a size between what is counted and a constant of the target's code."""


def is_counted(size: str) -> bool:
    """Tell whether a size is one of many indices, of which there is more than one dimension."""
    return size in COUNTED or size.startswith(("indices", "equal", "output"))
