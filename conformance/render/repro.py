"""A standalone script for each failure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from embconform.conformance.render.files import write_whole
from embconform.conformance.report import BROKEN, Report


def write(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Write ``<clause-id>.py`` for each broken clause.

    Parameters
    ----------
    reports : sequence of Report
        With several, each target's scripts go into a folder of its own.
    folder : Path
        Made where there is something to write.

    Returns
    -------
    list of Path

    Raises
    ------
    OSError
        If a script can't be written.
    """
    written: list[Path] = []
    for number, report in enumerate(reports, 1):
        home = folder if len(reports) == 1 else folder / f"{number}-{_slug(report.target)}"
        for result in report.with_status(*BROKEN):
            if result.failure and result.failure.script:
                home.mkdir(parents=True, exist_ok=True)
                path = home / f"{result.clause.id}.py"
                write_whole(path, result.failure.script.rstrip("\n") + "\n")
                written.append(path)
    return written


def _slug(target: str) -> str:
    """Make a folder's name of a target."""
    return re.sub(r"[^\w.-]+", "-", target).strip("-.")[-80:] or "target"
