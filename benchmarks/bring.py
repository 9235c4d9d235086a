"""Bring results that were made where asv is not into asv's format, through asv's own API.

A GPU often stands where nothing can be installed or cloned. ``embconform bench --json`` runs there;
its file comes back, and this writes it beside the results of asv's own runs, under a machine of its
own, with the GPU and its driver among the machine's properties::

    python -m benchmarks.bring gpu.json --machine gpu-box --commit HEAD
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = 1
NUMBERS = {
    "speed.Speed.track_seconds": lambda r: r["time"] and r["time"]["value"],
    "speed.Speed.track_share_of_ceiling": lambda r: r["share_of_ceiling"],
    "speed.Memory.track_peak_memory": lambda r: r["memory"] and r["memory"]["peak_bytes"],
    "speed.Memory.track_allocated": lambda r: r["memory"] and r["memory"]["allocated_bytes"],
    "speed.Compiling.track_first_call": lambda r: (
        r["compiled"] and r["compiled"]["first_call_seconds"]
    ),
    "speed.Compiling.track_recompilations": lambda r: (
        r["compiled"] and r["compiled"]["recompilations"]
    ),
}


class BringError(Exception):
    """A file that can't be brought in; one line."""


def read(path):
    """Read a file of ``embconform bench --json``.

    Raises
    ------
    BringError
        If it isn't one.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BringError(f"can't read {path}: {error}") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA or "results" not in report:
        raise BringError(f"{path} is no file of embconform bench --json, schema {SCHEMA}")
    return report


def machine_of(report, name):
    """Describe the machine that a report was made on, in asv's terms."""
    where = report["environment"]
    gpu = {key: where[key] for key in ("gpu", "driver", "cuda") if key in where}
    system = where["system"].split()
    return {
        "machine": name,
        "os": " ".join(system[:2]),
        "arch": system[-1],
        "cpu": where["cpu"],
        "num_cpu": where["cores"],
        "ram": where["memory"].split(",")[0],
        **gpu,
    }


def values(benchmark, report):
    """Give one benchmark's numbers in the order of its parameters; None where there is none.

    A wrong, broken or unsupported target has no number.
    """
    from itertools import product

    number = NUMBERS[benchmark["name"]]
    known = {
        (r["target"], r["workload"], r["pass"], r["device"]): number(r)
        for r in report["results"]
        if r["cache"] == "warm" and r["status"] == "ok"
    }
    # asv writes parameters as repr() does
    combinations = product(*[[name.strip("'") for name in axis] for axis in benchmark["params"]])
    return [known.get(combination) for combination in combinations]


def bring(path, machine, commit, config):
    """Write a report as asv results.

    Parameters
    ----------
    path : Path
    machine : str
    commit : str
        What it was measured at, as git names it.
    config : Path
        asv.conf.json; its results folder must know the benchmarks (``asv run --bench
        just-discover``).

    Returns
    -------
    str
        The file that was written.
    """
    from asv.benchmarks import Benchmarks
    from asv.config import Config
    from asv.machine import Machine
    from asv.repo import get_repo
    from asv.results import Results
    from asv.runner import BenchmarkResult

    report = read(path)
    conf = Config.load(str(config))
    repo = get_repo(conf)
    commit = repo.get_hash_from_name(commit)
    benchmarks = Benchmarks.load(conf)
    described = Machine()
    described.__dict__.update(machine_of(report, machine))
    python = ".".join(report["environment"]["python"].split(".")[:2])
    torch = report["environment"]["torch"]
    results = Results(
        {**described.__dict__, "python": python, "torch": torch},
        {"torch": torch},
        commit,
        repo.get_date(commit),
        python,
        f"embconform-bench-py{python}-torch{torch}",
        {},
    )
    brought = 0
    for name in set(NUMBERS) & set(benchmarks):
        found = values(benchmarks[name], report)
        brought += sum(value is not None for value in found)
        none = [None] * len(found)
        results.add_result(
            benchmarks[name],
            BenchmarkResult(
                result=found, samples=none, number=none, errcode=0, stderr="", profile=None
            ),
        )
    if not brought:
        raise BringError(f"{path} has no target, workload and pass that the benchmarks have")
    described.save(conf.results_dir)
    results.save(conf.results_dir)
    return f"{brought} numbers of {path} stand under {conf.results_dir}/{machine}"


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bring", description=__doc__)
    parser.add_argument("file", type=Path, help="what embconform bench --json wrote")
    parser.add_argument("--machine", required=True, help="a name of its own for the machine")
    parser.add_argument("--commit", default="HEAD", help="what was measured (default: HEAD)")
    parser.add_argument("--config", type=Path, default=ROOT / "asv.conf.json")
    given = parser.parse_args(arguments)
    from asv.util import UserError

    try:
        said = bring(given.file, given.machine, given.commit, given.config)
    except (BringError, UserError) as error:
        sys.stderr.write(f"bring: {' '.join(str(error).split())}\n")
        return 2
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
