"""embconform validate: judge targets and write what was found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embconform.backends.deviations import load
from embconform.backends.devices import DEVICES
from embconform.commands import judging_options
from embconform.commands.cluster import run_on_cluster
from embconform.commands.duration import Duration
from embconform.commands.outputs import Outputs
from embconform.commands.parts import read_pieces
from embconform.commands.planning import check_selection, plan_all
from embconform.commands.request import Request
from embconform.commands.running import run_all, show_all
from embconform.commands.shard import Shard
from embconform.commands.values import GIB, MOST_EXAMPLES, SECONDS, FilePath
from embconform.conformance.isolation.forking import server
from embconform.conformance.running.interrupt import Interruptible
from embconform.reference.clause import Profile

if TYPE_CHECKING:
    from embconform.conformance.running.merging import Piece

_FILE = FilePath()


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--profile",
    type=click.Choice([profile.value for profile in Profile]),
    help="Which embedding is meant.  [default: the backend's own]",
)
@judging_options.budget
@click.option(
    "--max-examples",
    type=click.IntRange(1, MOST_EXAMPLES),
    help="At most this many cases in all.",
)
@judging_options.seed
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    help="Where to run.  [default: cpu, or what the target is for]",
)
@judging_options.select
@judging_options.deviations
@judging_options.strict
@click.option("-x", "--fail-fast", is_flag=True, help="Stop at the first broken clause.")
@click.option(
    "--isolation",
    type=click.Choice(("process", "none")),
    default="process",
    show_default=True,
    help="Run the target in a process of its own, or in this one.",
)
@click.option(
    "--case-timeout",
    type=SECONDS,
    metavar="SECONDS",
    help="Longest time for one step.  [default: 60, 600 for compiled targets, until one is late; "
    "10 from then on, or ten times the slowest step]",
)
@click.option(
    "--timeout",
    type=SECONDS,
    metavar="SECONDS",
    help="Longest time for a run.  [default: by budget: 600, 3600 or 28800; x4 for compiled]",
)
@click.option(
    "--memory",
    type=GIB,
    metavar="GIB",
    help="Memory that the target may use.  [default: 9/10 of what is free]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    envvar="EMBCONFORM_WORKERS",
    metavar="N",
    help="Spread a run over N processes; the report is the same.  [default: one a core, at most 4]",
)
@click.option(
    "--shard",
    type=Shard(),
    default="1/1",
    metavar="I/N",
    help="Do only the I-th of N parts; embconform merge joins their JSON.",
)
@click.option(
    "--resume",
    type=_FILE,
    metavar="FILE",
    help="Go on with the run whose JSON says that it was cut.",
)
@click.option(
    "--for",
    "lasting",
    type=Duration(),
    metavar="DURATION",
    help="Go on with new seeds, for 2h, 30m or 45s.",
)
@click.option(
    "--scheduler",
    metavar="tcp://HOST:PORT",
    help="Run shards on a dask.distributed cluster.",
)
@click.option(
    "--database",
    metavar="WHERE",
    envvar="EMBCONFORM_DATABASE",
    help="Where failing cases persist: a folder, redis://HOST:PORT/NUMBER, "
    "github://OWNER/REPOSITORY/ARTIFACT, or none.  "
    "[default: a folder in the user's cache]",
)
@click.option("--json", "json_", type=_FILE, metavar="FILE", help="Write JSON; - is stdout.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write Markdown for a pull request.")
@judging_options.baseline
@click.option("--repro-dir", type=_FILE, metavar="DIR", help="Write a script for each failure.")
@click.pass_context
def validate(
    context: click.Context,
    /,
    *,
    targets: tuple[str, ...],
    json_: Path | None,
    junit: Path | None,
    markdown: Path | None,
    baseline: Path | None,
    repro_dir: Path | None,
    profile: str | None,
    **options: Any,
) -> None:
    """Judge embeddings by every clause that applies.

    TARGET is a name (see: embconform backends), package.module:attr or path/to/file.py:attr,
    where attr is a function f(input, weight, **options) like torch.nn.functional.embedding, a
    class like torch.nn.Embedding, or an embconform Backend.

    Exit codes: 0 conformant, 1 not conformant, 2 the call or the target can't be used, 3
    embconform itself failed, 130 interrupted (what was found until then is written).
    """
    outputs = Outputs(json_, junit, markdown, repro_dir, baseline)
    request = Request(profile=Profile(profile) if profile else None, **options)
    outputs.check()
    request.check(len(dict.fromkeys(targets)))
    if baseline and request.shard[1] > 1:
        raise click.UsageError("--baseline compares whole runs; give it to embconform merge")
    before = _before(request, targets[0]) if request.resume else None
    for candidate in [request.profile] if request.profile else []:
        check_selection(request.select, candidate)
    own_rows = load(request.deviations) if request.deviations else ()
    with Interruptible() as stop:
        if request.isolation == "process" and request.scheduler is None:
            server()  # at work on torch while hypothesis is imported here
        if request.scheduler is not None:
            named = list(dict.fromkeys(targets))
            reports = run_on_cluster(request.scheduler, named, request, stop)
            show_all(reports, to_stderr=outputs.on_stdout)
            outputs.write(reports)
            context.exit(0 if all(report.conformant for report in reports) else 1)
        from embconform.conformance.running.crew import preparing

        with preparing(request.helpers):
            plans = plan_all(targets, request, own_rows, stop)
            reports = run_all(plans, request, before, to_stderr=outputs.on_stdout, stop=stop)
        outputs.write(reports)
    if stop():
        context.exit(130)
    context.exit(0 if all(report.conformant for report in reports) else 1)


def _before(request: Request, target: str) -> Piece:
    """Read the cut run of the target."""
    assert request.resume is not None
    pieces = [piece for piece in read_pieces(request.resume) if piece.target == target]
    if not pieces:
        raise click.UsageError(f"{request.resume} holds no run of {target} that was cut")
    shard, of = pieces[0].found.shard, pieces[0].found.of
    if (shard, of) != request.shard:
        wanted = f"add --shard {shard}/{of}" if of > 1 else "leave --shard out"
        raise click.UsageError(f"{request.resume} is of shard {shard}/{of}; {wanted}")
    return pieces[0]
