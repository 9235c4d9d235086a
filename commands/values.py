"""The values of options that click's own types take too lightly."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Final, NoReturn

import click

MONTH: Final = 30 * 24 * 3600
MOST_EXAMPLES: Final = 10**9
MOST_THREADS: Final = 1024
_MOST_GIB: Final = 2**20
_LONGEST: Final = 255
"""Bytes of a file's name on the file systems that people have."""


class Amount(click.FloatRange):
    """A finite number in a range: neither nan, which no comparison refuses, nor inf."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number in the range {self._describe_range()}.", param, ctx)
        return number


SECONDS: Final = Amount(min=0, min_open=True, max=MONTH)
GIB: Final = Amount(min=0.1, max=_MOST_GIB)


class FilePath(click.Path):
    """A path that a file could have."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Read it."""
        text = os.fspath(value)
        if not text:
            self.fail("the name is empty; give a path", param, ctx)
        if "\0" in text:
            self.fail(f"{text!r} holds a null byte, which no path may", param, ctx)
        if any(len(os.fsencode(part)) > _LONGEST for part in Path(text).parts):
            self._too_long(text, param, ctx)
        return super().convert(value, param, ctx)

    def _too_long(
        self, text: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> NoReturn:
        self.fail(f"{text[:40]}… is too long; a name has at most {_LONGEST} bytes", param, ctx)
