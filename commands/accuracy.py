"""embconform accuracy: how far results lie from the exact ones, as numbers and as pictures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from embconform.commands.show import show
from embconform.commands.values import FilePath
from embconform.commands.written import STDOUT, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from embconform.conformance.accuracy import Accuracy

_FILE: Final = FilePath()
_MOST: Final = 16_384
SCHEMA: Final = 1


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--sums", type=_FILE, metavar="FILE", help="Draw gradient sums; .png or .svg.")
@click.option(
    "--norms", type=_FILE, metavar="FILE", help="Draw norms after a renorm; .png or .svg."
)
@click.option("--json", "json_", type=_FILE, metavar="FILE", help="Write JSON; - is stdout.")
@click.option(
    "--most", type=click.IntRange(1, _MOST), default=_MOST, show_default=True,
    help="The largest number of duplicates.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Draws terms."
)
def accuracy(
    *,
    targets: tuple[str, ...],
    sums: Path | None,
    norms: Path | None,
    json_: Path | None,
    most: int,
    seed: int,
) -> None:
    """Measure errors in ulp: of gradient sums by duplicates, of norms by p, for every dtype.

    TARGET is as validate takes it. Exact values, bounds and what breaks a clause are the judges';
    this is no verdict, which validate gives.

    Exit codes: 0 measured, 2 the call or a target can't be used.
    """
    names = list(dict.fromkeys(targets))
    _check(names, sums, norms, json_)
    found = _measured(names, most, seed)
    if sums:
        from embconform.conformance.render.accuracy import draw_sums

        _save("--sums", sums, draw_sums(found))
    if norms:
        from embconform.conformance.render.accuracy import draw_norms

        _save("--norms", norms, draw_norms(found))
    if json_:
        _write_json(found, json_)
    from embconform.conformance.render.accuracy import write

    show(lambda console: write(found, console), err=json_ == STDOUT)


def _measured(names: list[str], most: int, seed: int) -> Accuracy:
    """Measure each target in a process of its own."""
    from embconform.conformance.accuracy import joined, measure
    from embconform.conformance.isolation.isolated import Isolated
    from embconform.conformance.running.interrupt import Interruptible

    parts = []
    with Interruptible() as stop:
        for name in names:
            with Isolated(name, stop=stop) as target:
                parts.append(measure(target, name, most=most, seed=seed))
            if stop():
                raise click.Abort
    return joined(parts)


def _check(names: list[str], sums: Path | None, norms: Path | None, json_: Path | None) -> None:
    """Find out before the run whether everything can be written; nothing is."""
    from embconform.conformance.render.accuracy import MOST_TARGETS, kind_of, why_not
    from embconform.conformance.render.files import why_not_writable

    seen: dict[Path, str] = {}
    for option, path in (("--sums", sums), ("--norms", norms), ("--json", json_)):
        if path is None or (path == STDOUT and option == "--json"):
            continue
        if option != "--json" and not kind_of(path):
            raise click.UsageError(f"{option} {path}: the name must end in .png or .svg")
        if reason := why_not_writable(path):
            raise click.UsageError(f"can't write {option} {path}: {reason}")
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise click.UsageError(f"{other} and {option} are the same file, {path}")
        if option != "--json" and (reason := why_not()):
            raise click.UsageError(f"can't draw {option} {path}: {reason}")
    if (sums or norms) and len(names) > MOST_TARGETS:
        raise click.UsageError(
            f"{len(names)} targets can't be told apart in a picture; give at most {MOST_TARGETS}"
        )


def _save(option: str, path: Path, figure: Figure) -> None:
    from embconform.conformance.render.accuracy import kind_of, render

    try:
        path.write_bytes(render(figure, kind_of(path)))
    except OSError as error:
        raise click.ClickException(f"can't write {option} {path}: {error.strerror}") from error


def _write_json(found: Accuracy, path: Path) -> None:
    """Write what was measured; p = infinity and what is not finite as texts."""

    def plain(sample: dict[str, object]) -> dict[str, object]:
        odd = (float("inf"), float("-inf"))
        return {key: str(v) if v in odd or v != v else v for key, v in sample.items()}  # noqa: PLR0124

    document = {
        "schema": SCHEMA,
        "seed": found.seed,
        "sums": [plain(asdict(sample)) for sample in found.sums],
        "norms": [plain(asdict(sample)) for sample in found.norms],
    }
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n", "--json")
