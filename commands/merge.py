"""embconform merge: one report from the reports of a run's shards."""

from __future__ import annotations

from pathlib import Path

import click

from embconform.commands import judging_options
from embconform.commands.outputs import Outputs
from embconform.commands.parts import read_pieces
from embconform.commands.running import show_all
from embconform.commands.values import FilePath

_FILE = FilePath()


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option("--json", "json_", type=_FILE, metavar="FILE", help="Write JSON; - is stdout.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write Markdown for a pull request.")
@judging_options.baseline
@click.option("--repro-dir", type=_FILE, metavar="DIR", help="Write a script for each failure.")
@click.pass_context
def merge(
    context: click.Context,
    /,
    *,
    files: tuple[Path, ...],
    json_: Path | None,
    junit: Path | None,
    markdown: Path | None,
    baseline: Path | None,
    repro_dir: Path | None,
) -> None:
    """Make the report of a run from those of its shards.

    FILE is what validate --shard I/N --json FILE wrote; all N are needed, in any order. The report
    is the one that a run without --shard gives, but for times.

    Exit codes: as validate.
    """
    from embconform.conformance.running.merging import MergeError, merged

    outputs = Outputs(json_, junit, markdown, repro_dir, baseline)
    outputs.check()
    pieces = [read_pieces(path) for path in files]
    targets = [piece.target for piece in pieces[0]]
    for others in pieces[1:]:
        theirs = [piece.target for piece in others]
        if theirs != targets:
            raise click.UsageError(
                f"{pieces[0][0].file} is of {', '.join(targets)}, and {others[0].file} of "
                f"{', '.join(theirs)}; merge takes the shards of one run"
            )
    try:
        reports = [merged(shards) for shards in zip(*pieces, strict=True)]
    except MergeError as error:
        raise click.UsageError(str(error)) from error
    show_all(reports, to_stderr=outputs.on_stdout)
    outputs.write(reports)
    context.exit(0 if all(report.conformant for report in reports) else 1)
