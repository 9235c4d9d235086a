"""What is measured: one row a shape, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Literal

from embconform.performance.workloads import ITEM_BYTES

Group = Literal["forward", "small", "backward", "equal", "max_norm", "check"]
Clock = Literal["events", "graph", "host"]

WIDTHS: Final = (64, 128, 256, 384, 512, 768, 1024, 2048, 4096)
DTYPES: Final = ("float32", "bfloat16")
LARGE, MEDIUM = 512 * 2**20, 64 * 2**20
"""Bytes of output; the issue's targets begin at the second."""
VOCABULARY: Final = 250_000
SPARSENESS: Final = 16
"""Rows of a forward table for each index: 3% of uniform indices then repeat an earlier one."""
HOT: Final = 713_000
CLIFF: Final = (3_071, 3_072, 3_073, 4_096)
"""ATen takes other kernels beyond 3,072 indices."""
_DRY_COUNT, _DRY_ROWS = 96, 200


@dataclass(frozen=True, slots=True)
class Row:
    """A call whose time has a target.

    Attributes
    ----------
    group : str
    label : str
        The size, as the name says it.
    rows, width, count : int
        V, D and N.
    dtype : str
        By NumPy's name.
    ids : str
        ``uniform``, ``zipf`` or ``equal``.
    span : int
        Indices lie in 0..span-1.
    clock : str
        ``events``: a call alone. ``graph``: a launch of many in a CUDA graph. ``host``: a call of
        many that follow each other, by the host's clock.
    inductor : bool
        Whether the call is compiled too; each shape costs a second.
    quick : bool
        Whether a quick run has it.
    """

    group: Group
    label: str
    rows: int
    width: int
    count: int
    dtype: str
    ids: str
    span: int
    clock: Clock = "events"
    inductor: bool = False
    quick: bool = False

    @property
    def name(self) -> str:
        """What the user types, such as ``forward-512M-768-float32-zipf``."""
        clock = "-host" if self.clock == "host" else ""
        return f"{self.group}{clock}-{self.label}-{self.width}-{self.dtype}-{self.ids}"

    @property
    def line(self) -> int:
        """Bytes of a row of the table."""
        return self.width * ITEM_BYTES[self.dtype]

    @property
    def output(self) -> int:
        """Bytes of the output, or of the upstream gradient."""
        return self.count * self.line

    def dry(self) -> Row:
        """Make it small enough for a machine that only tries the program out."""
        rows, count = min(self.rows, _DRY_ROWS), min(self.count, _DRY_COUNT)
        return replace(self, rows=rows, count=count, span=min(self.span, rows))


def plan() -> list[Row]:
    """List the rows, those first that a run short of time must not miss."""
    return [
        *_forward(LARGE, "512M"),
        *_small(),
        *_backward(),
        *_equal(),
        *_max_norm(),
        *_check(),
        *_forward(MEDIUM, "64M"),
    ]


def find(pattern: str | None, *, quick: bool = False) -> list[Row]:
    """List rows by their names.

    Parameters
    ----------
    pattern : str or None
        A shell pattern, several joined by commas; None for all.
    quick : bool
        Only those that a quick run has.

    Returns
    -------
    list of Row
        In the order of the plan.
    """
    wanted = [part.strip() for part in (pattern or "*").split(",")]
    return [
        row
        for row in plan()
        if any(fnmatchcase(row.name, part) for part in wanted) and (row.quick or not quick)
    ]


def _forward(size: int, label: str) -> Iterator[Row]:
    for width in WIDTHS:
        for dtype in DTYPES:
            count = size // (width * ITEM_BYTES[dtype])
            rows = max(VOCABULARY, SPARSENESS * count)
            quick = size == LARGE and width in (64, 768, 4096)
            for ids, span in (("uniform", rows), ("zipf", VOCABULARY)):
                yield Row(
                    "forward", label, rows, width, count, dtype, ids, span, "events", True, quick
                )


def _small() -> Iterator[Row]:
    for count in (1, 128, 1_024, 4_096):
        for dtype in DTYPES:
            yield Row(
                "small", f"{count}", VOCABULARY, 768, count, dtype, "uniform", VOCABULARY,
                "graph", True, dtype == "float32",
            )  # fmt: skip


def _backward() -> Iterator[Row]:
    for width in (768, 128):
        for rows, count in (
            (rows, count) for rows in (50_000, 250_000) for count in (8_192, 65_536, 1_048_576)
        ):
            for dtype in DTYPES:
                label = f"{rows // 1_000}k-{count // 1_024}k"
                quick = width == 768 and rows == 250_000
                yield Row(
                    "backward", label, rows, width, count, dtype, "zipf", rows, "events",
                    width == 768, quick,
                )  # fmt: skip


def _equal() -> Iterator[Row]:
    yield Row("equal", "713k", 1_000, 384, HOT, "bfloat16", "equal", 1_000, quick=True)
    for count in CLIFF:
        yield Row("equal", f"{count}", 1_000, 384, count, "bfloat16", "equal", 1_000, quick=True)


def _max_norm() -> Iterator[Row]:
    for width in (128, 768):
        for dtype in DTYPES:
            yield Row(
                "max_norm", "64k", VOCABULARY, width, 65_536, dtype, "zipf", VOCABULARY,
                quick=width == 768,
            )  # fmt: skip


def _check() -> Iterator[Row]:
    clocks: tuple[Clock, ...] = ("events", "host")
    for clock in clocks:
        for count in (1, 4_096, 65_536):
            yield Row(
                "check", f"{count}", VOCABULARY, 768, count, "float32", "uniform", VOCABULARY,
                clock, quick=count == 4_096,
            )  # fmt: skip
