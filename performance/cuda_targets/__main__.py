"""python -m embconform.performance.cuda_targets: measure, print and render."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import click

from embconform.performance.cuda_targets.contenders import FAMILIES, get_ready
from embconform.performance.cuda_targets.digest import digest
from embconform.performance.cuda_targets.document import Document, Record, read, write
from embconform.performance.cuda_targets.page import fill
from embconform.performance.cuda_targets.race import SAMPLES, DeadDeviceError
from embconform.performance.cuda_targets.rows import find
from embconform.performance.cuda_targets.run import measure
from embconform.performance.cuda_targets.tables import compact, lines_of

FILE: Final = "cuda-targets.json"
TABLE: Final = "cuda-targets.txt"
PAGE: Final = Path("docs/performance-cuda.md")
DIGESTS: Final = Path("docs/data/cuda-targets")
"""Of the runs on the page, in the order of their columns."""
_DRY_SAMPLES: Final = 3
_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def _families(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    for name in wanted:
        if name not in FAMILIES:
            raise click.BadParameter(f"no contender {name!r}; there are {', '.join(FAMILIES)}")
    return wanted


@click.group(invoke_without_command=True)
@click.option("--rows", "pattern", metavar="GLOB", help="Only these; patterns joined by commas.")
@click.option(
    "--seconds", type=click.FloatRange(1), default=150.0, show_default=True, help="For everything."
)
@click.option("--out", type=_FOLDER, default=".", help=f"Where {FILE} goes.  [default: here]")
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True,
    help="cpu tries the program out, with tiny sizes; its times mean nothing.",
)  # fmt: skip
@click.option(
    "--contenders", "families", metavar="NAMES", default=",".join(FAMILIES), show_default=True,
    callback=_families, help="Joined by commas.",
)  # fmt: skip
@click.option("--label", default="", help="What this version is called in the page.")
@click.option("--quick", is_flag=True, help="A third of the rows.")
@click.option("--list", "list_", is_flag=True, help="List the rows and exit.")
@click.option("--onto", type=_FILE, metavar="FILE", help="Go on from what an earlier run wrote.")
@click.pass_context
def main(
    context: click.Context,
    /,
    *,
    pattern: str | None,
    list_: bool,
    quick: bool,
    device: str,
    **options: Any,
) -> None:
    """Measure whether GPU kernels reach their targets, beside ATen and Inductor.

    Exit codes: 0 measured, whatever was found; 2 the call can't be used.
    """
    if context.invoked_subcommand:
        return
    rows = find(pattern, quick=quick)
    if not rows:
        raise click.UsageError(f"--rows {pattern!r} matches no row; see --list")
    if list_:
        click.echo("\n".join(row.name for row in rows))
        return
    _check_device(device)
    out: Path = options["out"]
    out.mkdir(parents=True, exist_ok=True)
    record = _record(device, options["onto"], options["label"])
    began, families = perf_counter(), options["families"]
    get_ready(families)

    def tell(name: str, entry: Document) -> None:
        click.echo("\n".join(lines_of(name, entry, dry=device != "cuda")))
        write(out / FILE, record.as_dict())

    samples = SAMPLES if device == "cuda" else _DRY_SAMPLES
    try:
        measure(record, rows, families, samples=samples, seconds=options["seconds"], tell=tell)
    except DeadDeviceError as error:
        record.notes.append(f"{error}; it was left out from there on")
        write(out / FILE, record.as_dict())
        click.echo(record.notes[-1])
        left = options["seconds"] - (perf_counter() - began)
        others = [name for name in families if name != error.family]
        if others and left >= 1:
            _start_over([row.name for row in rows], others, device, left, out)
    record.notes.append(f"{perf_counter() - began:.0f} s")
    document = record.as_dict()
    write(out / FILE, document)
    text = compact(document)
    (out / TABLE).write_text(text + "\n", encoding="utf-8")
    click.echo(f"\n{text}")


@main.command()
@click.argument("files", nargs=-1, type=_FILE)
@click.option("--page", type=_FILE, default=PAGE, show_default=True, help="What is rewritten.")
def render(files: tuple[Path, ...], page: Path) -> None:
    """Write the tables of the page anew: predictions, and a column for each of FILES.

    FILES are runs or digests of them; without any, all of docs/data/cuda-targets.
    """
    files = files or tuple(sorted(DIGESTS.glob("*.json")))
    try:
        text = fill(page.read_text(encoding="utf-8"), [read(file) for file in files])
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    page.write_text(text, encoding="utf-8")


@main.command("digest")
@click.argument("file", type=_FILE)
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--label", default="", help="What this version is called in the page.")
def _digest(file: Path, target: Path, label: str) -> None:
    """Write to TARGET what the page needs of FILE: medians instead of samples."""
    try:
        write(target, digest(read(file), label))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _check_device(device: str) -> None:
    """Refuse a device that isn't there."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(
            f"torch {torch.__version__} finds no CUDA device here; --device cpu is for trying out"
        )


def _record(device: str, onto: Path | None, label: str) -> Record:
    """Begin a record, or take one up."""
    from embconform.performance.machine import machine

    if onto is None:
        return Record(device, label, machine(device, 1))
    try:
        record = Record.from_dict(read(onto))
    except ValueError as error:
        raise click.UsageError(f"--onto: {error}") from error
    if record.device != device:
        raise click.UsageError(f"--onto: {onto} is of {record.device}, not of {device}")
    return record


def _start_over(rows: list[str], families: list[str], device: str, left: float, out: Path) -> None:
    """Replace this process by one that goes on without the contender that ended the context."""
    arguments = ["--rows", ",".join(rows), "--seconds", f"{left:.0f}", "--out", str(out)]
    arguments += ["--contenders", ",".join(families), "--onto", str(out / FILE), "--device", device]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", __package__, *arguments])


if __name__ == "__main__":
    main(prog_name=f"python -m {__package__}")
