"""embconform gate --history: the slow drift that no single change shows."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from embconform import __version__
from embconform.commands.show import show
from embconform.commands.written import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from embconform.commands.outputs import Outputs
    from embconform.performance.gate.history import Change, Found

SCHEMA: Final = 1
FINE, REGRESSION, UNTOLD = 0, 1, 3
_VERDICTS: Final = {FINE: "fine", REGRESSION: "regression", UNTOLD: "inconclusive"}


def need_asv(config: Path, *packages: str) -> None:
    """Refuse what needs asv and other packages where they aren't there, or asv isn't configured.

    Raises
    ------
    ClickException
    """
    missing = [name for name in ("asv", *packages) if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"not installed: {' and '.join(missing)} (pip install 'embconform[history]')"
        )
    if not config.is_file():
        raise click.ClickException(f"no file {config}; name asv's configuration")


def drift(config: Path, outputs: Outputs) -> int:
    """Find changes of level in asv's results, and print them.

    Parameters
    ----------
    config : Path
        asv.conf.json.
    outputs : Outputs

    Returns
    -------
    int
        The exit code: 0 nothing is worse than it was, 1 something is, 3 all is too short to tell.

    Raises
    ------
    ClickException
        If there is nothing to read.
    """
    need_asv(config, "ruptures")
    from embconform.performance.gate.asv_results import AsvError, read
    from embconform.performance.gate.history import examine

    try:
        found = examine(read(config))
    except AsvError as error:
        raise click.ClickException(str(error)) from error
    code = exit_code(found)
    show(lambda console: _terminal(found, code, console), err=outputs.on_stdout)
    for path, text in ((outputs.json, _json), (outputs.markdown, _markdown)):
        if path:
            write_text(path, text(found, code))
    return code


def exit_code(found: Sequence[Found]) -> int:
    """Give the exit code."""
    if any(series.regressed for series in found):
        return REGRESSION
    return UNTOLD if all(series.short for series in found) else FINE


def _facts(found: Sequence[Found]) -> list[str]:
    """Say what was looked at, and what could not be."""
    from embconform.performance.gate.history import ALARM

    short = [series for series in found if series.short]
    most = max(len(series.series.values) for series in found)
    lines = [f"{len(found)} series of up to {most} commits; without a change, {ALARM:.0%} of such "
             "histories show one"]  # fmt: skip
    if short:
        lines.append(f"{len(short)} of them are too short to show anything")
    return lines


def _said(change: Change) -> str:
    by = f"{change.size:+.1%}" if math.isfinite(change.size) else "from nothing"
    return f"{by} at {change.commit} or near it ({change.old:.4g} to {change.new:.4g})"


def _terminal(found: Sequence[Found], code: int, console: Console) -> None:
    from rich.text import Text

    for series in found:
        if series.changes:
            console.print(Text(series.series.name, "bold red" if series.regressed else "bold"))
        for change in series.changes:
            console.print(Text(f"  {_said(change)}"))
        if series.regressed:
            console.print(Text(f"  now {_by(series)} worse than at its best"))
    for line in _facts(found):
        console.print(Text(line, "dim"))
    console.print(Text(_VERDICTS[code], "bold"))


def _by(series: Found) -> str:
    return f"{series.worse:.1%}" if math.isfinite(series.worse) else "infinitely"


def _markdown(found: Sequence[Found], code: int) -> str:
    lines = [f"### embconform gate --history: {_VERDICTS[code]}", ""]
    for series in found:
        worse = f", now {_by(series)} worse than at its best" if series.regressed else ""
        lines += [f"- `{series.series.name}`{worse}"] * bool(series.changes)
        lines += [f"  - {_said(change)}" for change in series.changes]
    return "\n".join([*lines, "", *_facts(found), ""])


def _json(found: Sequence[Found], code: int) -> str:
    plain: list[dict[str, Any]] = [
        {
            "name": series.series.name,
            "commits": list(series.series.commits),
            "values": list(series.series.values),
            "more_is_worse": series.series.more_is_worse,
            "changes": [asdict(change) for change in series.changes],
            "worse": series.worse if math.isfinite(series.worse) else None,
            "regressed": series.regressed,
            "too_short": series.short,
        }
        for series in found
    ]
    document = {
        "schema": SCHEMA, "embconform": __version__, "verdict": _VERDICTS[code], "series": plain,
    }  # fmt: skip
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
