"""Judge every backend that can run here, and write docs/reports: a file each, and a table.

``python -m embconform.proof.reports [NAME...]``; with ``--made FILE`` a report that was made where
a backend can run, on a GPU for one, is taken in instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import click
from jinja2 import Environment

from embconform.backends.catalogue import catalogue, reason_not_to_run
from embconform.conformance.render.files import write_whole

FOLDER: Final = Path("docs/reports")
PACKAGES: Final = {
    "jax": ("jax", "jaxlib"),
    "flax": ("flax", "jax", "jaxlib"),
    "keras-torch": ("keras",),
    "keras-jax": ("keras", "jax", "jaxlib"),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
    "numba": ("numba", "llvmlite"),
    "mlx": ("mlx", "mlx-cpu"),
    "tinygrad": ("tinygrad",),
    "torchao": ("torchao",),
    "fbgemm": ("fbgemm-gpu-cpu",),
}
"""Distributions whose versions a report names, beside those of every report."""
_JUDGED: Final = ("deviation", "fail", "crash", "timeout", "unexpected-pass")
_PAGE: Final = """\
# Reports

Every backend of `embconform backends`, judged where its package is installed. This page and the
files beside it are written by

<!-- not run: takes half an hour -->
```bash
python -m embconform.proof.reports
```

A deviation is a failure that is declared, with a reason and a repro, in a TOML file beside the
backend; a clause that asks for more than a backend declares is unsupported.

| backend | verdict | pass | deviation | fail | untested | unsupported | cases | judged with |
|---|---|--:|--:|--:|--:|--:|--:|---|
{% for r in reports -%}
| [{{ r.target }}]({{ r.target }}.json) | {{ r.verdict }} | {{ r.counts.pass }} \
| {{ r.counts.deviation }} | {{ r.counts.fail }} | {{ r.counts.untested }} \
| {{ r.counts.unsupported }} | {{ "{:,}".format(r.cases) }} | {{ r.versions }} |
{% endfor %}
## What deviates
{% for r in reports if r.deviation %}
### {{ r.target }}

{% for clause, row in r.deviation.items() -%}
- `{{ clause }}`: {{ row.reason }} ([finding](../../{{ row.link }}))
{% endfor -%}
{% endfor %}"""


def condense(report: dict[str, Any], packages: tuple[str, ...]) -> dict[str, Any]:
    """Keep of a report in JSON what tells one run from another.

    Parameters
    ----------
    report : dict
        What ``embconform validate --json`` writes.
    packages : tuple of str
        Distributions whose versions are added.

    Returns
    -------
    dict
        Clause ids by status; for what was broken, also why.
    """
    kept = {
        key: report[key]
        for key in ("target", "profile", "device", "seed", "budget", "verdict", "cases")
    }
    kept["seconds"] = round(report["seconds"])
    kept["environment"] = report["environment"] | {name: _version(name) for name in packages}
    for clause in report["clauses"]:
        group = kept.setdefault(clause["status"], {} if clause["status"] in _JUDGED else [])
        if isinstance(group, list):
            group.append(clause["id"])
        else:
            group[clause["id"]] = _why(clause)
    return kept


def page(reports: list[dict[str, Any]]) -> str:
    """Write the table of all reports.

    Parameters
    ----------
    reports : list of dict
        As :func:`condense` gives them.

    Returns
    -------
    str
        Markdown.
    """
    rows = [
        report
        | {"counts": _counts(report), "versions": _versions(report["environment"])}
        | {"deviation": report.get("deviation", {})}
        for report in reports
    ]
    environment = Environment(keep_trailing_newline=True, autoescape=False)
    return environment.from_string(_PAGE).render(reports=rows).rstrip() + "\n"


def read(folder: Path) -> list[dict[str, Any]]:
    """Read the reports of a folder, in the catalogue's order."""
    files = [folder / f"{name}.json" for name in catalogue()]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


def _why(clause: dict[str, Any]) -> dict[str, str]:
    row = clause["deviation"] or {}
    return {key: row[key] for key in ("reason", "link") if key in row} | {
        "detail": clause["detail"].replace(sys.prefix, "...")[:200]  # a traceback names folders
    }


def _counts(report: dict[str, Any]) -> dict[str, int]:
    counts = {name: len(report.get(name, ())) for name in ("pass", "untested", "unsupported")}
    deviation = len(report.get("deviation", ()))
    broken = sum(len(report.get(name, ())) for name in ("fail", "crash", "timeout"))
    return counts | {"deviation": deviation, "fail": broken}


def _versions(environment: dict[str, str]) -> str:
    common = ("embconform", "numpy", "hypothesis", "python", "system", "threads")
    return ", ".join(f"{name} {what}" for name, what in environment.items() if name not in common)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _judge(name: str, budget: str) -> dict[str, Any] | None:
    """Run embconform validate; None where it could not."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "report.json"
        command = [sys.executable, "-m", "embconform", "validate", name, "--budget", budget]
        command += ["--database", "none", "--json", str(written)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if not written.is_file():
            click.echo(f"{name}: {ended.stderr.strip()}", err=True)
            return None
        found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        return found


def _is_of_a_gpu(report: Path) -> bool:
    """Tell whether a report tells more than can be found out here."""
    import torch

    there = report.is_file() and not torch.cuda.is_available()
    return there and json.loads(report.read_text(encoding="utf-8"))["device"] == "cuda"


def _take_in(report: dict[str, Any], into: Path) -> bool:
    """Write a report and the page anew; tell whether the backend is conformant."""
    name = report["target"]
    if name not in catalogue():
        raise click.BadParameter(f"no backend is called {name!r}", param_hint="FILE")
    kept = condense(report, PACKAGES.get(name, ()))
    write_whole(into / f"{name}.json", json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    write_whole(into / "README.md", page(read(into)))
    click.echo(f"{name}: {report['verdict']}, {report['cases']} cases, {kept['seconds']} s")
    return bool(report["verdict"] == "conformant")


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--into", type=click.Path(path_type=Path), default=FOLDER, show_default=True)
@click.option(
    "--budget", type=click.Choice(["quick", "default", "thorough"]), default="quick",
    show_default=True, help="How many cases to run.",
)  # fmt: skip
@click.option(
    "--made", type=click.Path(path_type=Path, exists=True, dir_okay=False), multiple=True,
    help="Take in what `embconform validate NAME --json FILE` wrote elsewhere; may be repeated.",
)  # fmt: skip
def main(names: tuple[str, ...], into: Path, budget: str, made: tuple[Path, ...]) -> None:
    """Judge the backends NAME..., or all, and write what was found; old reports are replaced.

    The report of a backend that can't run here stays as it is, and so does one of a GPU where there
    is none and the backend is not named. Exit codes: 0 all that ran are conformant, 1 one is not,
    2 a name is none.
    """
    known = catalogue()
    for name in names:
        if name not in known:
            raise click.BadParameter(f"no backend is called {name!r}", param_hint="NAME")
    into.mkdir(parents=True, exist_ok=True)
    conformant = True
    for file in made:
        conformant &= _take_in(json.loads(file.read_text(encoding="utf-8")), into)
    for name in names or (() if made else known):
        reason = reason_not_to_run(known[name].path)
        if not (reason or names) and _is_of_a_gpu(into / f"{name}.json"):
            reason = "its report is of a GPU, and there is none here"
        report = None if reason else _judge(name, budget)
        if report is None:
            click.echo(f"{name}: left as it is{f': {reason}' if reason else ''}", err=True)
            continue
        conformant &= _take_in(report, into)
    sys.exit(0 if conformant else 1)


if __name__ == "__main__":
    main()
