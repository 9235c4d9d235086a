"""The files that a run writes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embconform.commands.parts import read_columns
from embconform.commands.written import STDOUT, write_text

if TYPE_CHECKING:
    from embconform.conformance.render.matrix.model import Column
    from embconform.conformance.report import Report


@dataclass(frozen=True)
class Outputs:
    """Where the user wants reports.

    Attributes
    ----------
    json, junit, markdown : Path or None
        Files; ``-`` is stdout, for JSON only.
    repro_dir : Path or None
        A folder for one script a failure.
    baseline : Path or None
        JSON of an earlier run, with which the Markdown compares.
    """

    json: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    repro_dir: Path | None = None
    baseline: Path | None = None

    @cached_property
    def base(self) -> list[Column] | None:
        """The reports of the baseline; None where there is none."""
        return None if self.baseline is None else read_columns(self.baseline)

    @property
    def on_stdout(self) -> bool:
        """Whether stdout belongs to the JSON."""
        return self.json == STDOUT

    def check(self) -> None:
        """Find out before the run whether everything can be written; nothing is.

        Raises
        ------
        click.UsageError
            With one line on the first that can't.
        """
        from embconform.conformance.render.files import why_no_folder, why_not_writable

        seen: dict[Path, str] = {}
        for option, path in self._files():
            if path == STDOUT:
                if option != "--json":
                    raise click.UsageError(f"{option} - : only --json may go to stdout")
                if sys.__stdout__ is None:
                    raise click.UsageError("can't write --json -: standard output is closed")
                continue
            if reason := why_not_writable(path):
                raise click.UsageError(f"can't write {option} {path}: {reason}")
            other = seen.setdefault(path.resolve(), option)
            if other != option and path.is_file() | (not path.exists()):
                raise click.UsageError(f"{other} and {option} are the same file, {path}")
        if self.repro_dir and (reason := why_no_folder(self.repro_dir)):
            raise click.UsageError(f"can't write --repro-dir {self.repro_dir}: {reason}")
        if self.baseline and self.markdown is None:
            raise click.UsageError("--baseline is what --markdown compares with; add --markdown")
        _ = self.base  # read now: the run may replace the file

    def write(self, reports: Sequence[Report]) -> None:
        """Write everything that was asked for.

        Parameters
        ----------
        reports : sequence of Report

        Raises
        ------
        click.ClickException
            With one line, if a file can't be written after all.
        """
        from embconform.conformance.render import json, junit, markdown, repro

        for option, path in self._files():
            match option:
                case "--json":
                    text = json.render(reports)
                case "--junit":
                    text = junit.render(reports)
                case _:
                    text = markdown.render(reports, self.base)
            write_text(path, text, option)
        if self.repro_dir:
            try:
                repro.write(reports, self.repro_dir)
            except OSError as error:
                said = error.strerror or error
                message = f"can't write --repro-dir {self.repro_dir}: {said}"
                raise click.ClickException(message) from error

    def _files(self) -> list[tuple[str, Path]]:
        """List the options that name a file."""
        named = [("--json", self.json), ("--junit", self.junit), ("--markdown", self.markdown)]
        return [(option, path) for option, path in named if path is not None]
