"""The files that embconform bench writes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embconform.commands.show import emit
from embconform.commands.written import STDOUT

if TYPE_CHECKING:
    from embconform.performance.run import BenchReport


@dataclass(frozen=True)
class BenchFiles:
    """The files that a run writes."""

    json: Path | None
    html: Path | None
    plots: tuple[Path, ...]

    def check(self) -> None:
        """Find out before the run whether everything can be written; nothing is.

        Raises
        ------
        click.UsageError
            With one line on the first that can't.
        """
        from embconform.conformance.render.files import why_not_writable
        from embconform.performance.render import plot

        seen: dict[Path, str] = {}
        for option, path in self._named():
            if path == STDOUT and option == "--json":
                continue
            if path == STDOUT:
                raise click.UsageError(f"{option} - : only --json may go to stdout")
            if option == "--plot" and not plot.kind_of(path):
                raise click.UsageError(f"--plot {path}: the name must end in .png or .svg")
            if reason := why_not_writable(path):
                raise click.UsageError(f"can't write {option} {path}: {reason}")
            other = seen.setdefault(path.resolve(), option)
            if other != option:
                raise click.UsageError(f"{other} and {option} are the same file, {path}")
        if self.plots and (reason := plot.why_not()):
            raise click.UsageError(f"can't draw --plot {self.plots[0]}: {reason}")

    def write(self, report: BenchReport) -> None:
        """Write everything that was asked for.

        Parameters
        ----------
        report : BenchReport

        Raises
        ------
        click.ClickException
            With one line, if a file can't be written after all.
        """
        from embconform.conformance.render.files import write_whole
        from embconform.performance.render import html, json, plot

        for option, path in self._named():
            try:
                if path == STDOUT:
                    emit(json.render(report), sys.stdout)
                elif option == "--plot":
                    path.write_bytes(plot.render(report, plot.kind_of(path)))
                else:
                    write_whole(path, (json if option == "--json" else html).render(report))
            except OSError as error:
                said = error.strerror or str(error)
                raise click.ClickException(f"can't write {option} {path}: {said}") from error

    def _named(self) -> list[tuple[str, Path]]:
        single = [("--json", self.json), ("--html", self.html)]
        named = [(option, path) for option, path in single if path is not None]
        return named + [("--plot", path) for path in self.plots]
