"""The options of what judges targets, in words that hold for each such command."""

from __future__ import annotations

import click

from embconform.commands.values import FilePath

budget = click.option(
    "--budget",
    type=click.Choice(("quick", "default", "thorough")),
    default="default",
    show_default=True,
    help="How many cases to run.",
)
seed = click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Draws cases."
)
select = click.option(
    "--select",
    metavar="GLOB",
    default="*",
    help="Only clauses whose id matches; several patterns joined by commas.",
)
deviations = click.option(
    "--deviations",
    type=FilePath(),
    metavar="FILE",
    help="TOML with known deviations; or a built-in's name.",
)
strict = click.option(
    "--strict", is_flag=True, help="Let SHOULD clauses and unexpected passes count."
)
baseline = click.option(
    "--baseline",
    type=FilePath(),
    metavar="FILE",
    help="JSON of an earlier run: --markdown tells what changed since.",
)
