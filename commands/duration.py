"""The time of --for."""

from __future__ import annotations

import re
from typing import Final

import click

from embconform.commands.values import MONTH

_UNITS: Final = {"h": 3600, "m": 60, "s": 1}


class Duration(click.ParamType[float]):
    """A time such as 2h, 90m, 1h30m or 45s; in seconds once it is read."""

    name = "DURATION"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it."""
        parts = re.fullmatch(r"(?:([0-9]{1,4})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,7})s)?", str(value))
        given = parts.groups() if parts else ()
        pairs = zip(given, _UNITS.values(), strict=False)
        seconds = sum(int(number) * unit for number, unit in pairs if number)
        if not 0 < seconds <= MONTH:
            self.fail(f"{value} is no time up to 30 days, such as 2h, 1h30m or 45s", param, ctx)
        return float(seconds)
