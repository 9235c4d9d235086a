"""The I/N of --shard."""

from __future__ import annotations

import re
from typing import Final

import click

MOST: Final = 1000


class Shard(click.ParamType[tuple[int, int]]):
    """Which of how many parts of a run."""

    name = "I/N"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read two whole numbers, 1 <= I <= N."""
        match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", str(value))
        shard, of = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= shard <= of <= MOST:
            self.fail(f"{value} is not I/N with 1 <= I <= N <= {MOST}, such as 1/3", param, ctx)
        return shard, of
