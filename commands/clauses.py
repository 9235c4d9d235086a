"""embconform clauses: what an embedding must do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from embconform.commands.show import show
from embconform.reference.clause import DEVICES, Clause, Profile, registry, select

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.argument("clause_id", metavar="[ID]", required=False)
@click.option(
    "--profile",
    type=click.Choice([profile.value for profile in Profile]),
    help="Only the clauses of this profile.",
)
def clauses(clause_id: str | None, profile: str | None) -> None:
    """List the clauses, or show one.

    ID is a clause's id, a group such as padding, or a pattern such as 'padding.*'.
    """
    if clause_id in registry():
        clause = registry()[clause_id]
        if profile and profile not in clause.profiles:
            raise click.UsageError(f"{clause.id} belongs to the {clause.profile} profile alone")
        show(lambda console: _one(clause, console))
        return
    pattern = "*" if clause_id is None else clause_id
    found = _matching(pattern, [Profile(profile)] if profile else list(Profile))
    if not found:
        raise click.UsageError(_not_found(pattern, profile))
    show(lambda console: _table(found, console))


def _matching(pattern: str, profiles: list[Profile]) -> list[Clause]:
    """List the clauses of any of the profiles, in the order of the specification."""
    if pattern in {clause.group for clause in registry().values()}:
        pattern = f"{pattern}.*"
    chosen = {clause.id for profile in profiles for clause in select(profile, pattern)}
    return [clause for clause in registry().values() if clause.id in chosen]


def _not_found(pattern: str, profile: str | None) -> str:
    """Word an id or a pattern that matches nothing."""
    inside = f" in the {profile} profile" if profile else ""
    if any(char in pattern for char in "*?["):
        return f"no clause matches {pattern!r}{inside}"
    groups = {clause.group for clause in registry().values()}
    close = get_close_matches(pattern, [*registry(), *sorted(groups)], n=3)
    hint = f", did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"no clause is called {pattern!r}{inside}{hint or ' (see: embconform clauses)'}"


def _one(clause: Clause, console: Console) -> None:
    """Show everything about one clause."""
    from rich.text import Text

    rows = [
        ("level", clause.level.value),
        ("profile", clause.profile),
        ("source", clause.source),
        ("needs", ", ".join(sorted(clause.needs)) or "nothing"),
    ]
    if clause.devices != DEVICES:
        rows.append(("devices", f"{', '.join(sorted(clause.devices))} only"))
    if clause.policy:
        rows.append(("policy", "PyTorch leaves this undocumented; the suite had to choose"))
    wide = not console.is_terminal
    console.print(Text(clause.id, "bold"), soft_wrap=wide)
    console.print(Text(clause.sentence, "italic"), soft_wrap=wide)
    console.print()
    for name, value in rows:
        console.print(Text.assemble((f"{name:<9}", "dim"), value), soft_wrap=wide)
    console.print()
    for line in clause.example.splitlines():
        console.print(Text(f"    {line}", "cyan"), soft_wrap=True)


def _table(found: list[Clause], console: Console) -> None:
    """Show a line a clause."""
    from rich.table import Table
    from rich.text import Text

    if not console.is_terminal:
        widest = max(len(clause.id) for clause in found)
        for clause in found:
            line = f"{clause.id:<{widest}}  {clause.level.value:<6}  {clause.profile:<8}  "
            console.print(Text(line + clause.sentence), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("id", "level", "profile"):
        table.add_column(name, no_wrap=True)
    table.add_column("sentence", ratio=1)
    for clause in found:
        level, profile = clause.level.value, clause.profile
        table.add_row(Text(clause.id, "cyan"), level, profile, Text(clause.sentence))
    console.print(table)
    console.print(Text(f"{len(found)} clauses; embconform clauses ID shows one", "dim"))
