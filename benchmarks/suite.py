"""How fast the conformance suite itself is, and how long its import takes."""

import subprocess
import sys

from benchmarks.common import PROFILE, needs

CASES = {"quick": 100, "regular": 1_000}
REPEATS = 5
ENGINE = "conformance.running.engine"


def _import_seconds(*modules):
    """Time processes that import modules; the fastest of a few."""
    code = "from time import perf_counter as t; a = t(); import {}; print(t() - a)"
    command = [sys.executable, "-c", code.format(", ".join(modules))]
    times = []
    for _ in range(REPEATS):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(float(done.stdout))
    return min(times)


class Suite:
    """Cases a second of ``embconform validate eager``."""

    timeout = 300

    def setup(self):
        """Skip commits that have the engine elsewhere."""
        needs("backends.deviations", "backends.targets", "conformance.options", ENGINE)

    def track_cases_per_second(self):
        """Track judged cases over the seconds of the run, once everything is imported."""
        _judge(20)
        report = _judge(CASES[PROFILE])
        return report.cases / report.seconds

    track_cases_per_second.unit = "cases/s"


def _judge(cases):
    from embconform.backends.deviations import active, load
    from embconform.backends.targets import resolve
    from embconform.conformance.options import RunOptions
    from embconform.conformance.quiet import captured_output
    from embconform.conformance.running.engine import run

    backend = resolve("eager")
    options = RunOptions(
        profile=backend.profiles[0],
        max_examples=cases,
        deviations=active(load(backend.deviations)),
        select="lookup.*,gradient.*,padding.*,max-norm.*,sparse.*,errors.*",
    )
    with captured_output():
        return run(backend, options, target="eager")


class Import:
    """Seconds of an import in a new process."""

    timeout = 120

    def setup(self):
        """Skip commits that have the engine elsewhere."""
        needs(ENGINE)

    def track_import_embconform(self):
        """Track ``import embconform``, which must not import torch."""
        return _import_seconds("embconform")

    def track_import_engine(self):
        """Track the import of everything that a run needs, torch included."""
        return _import_seconds(f"embconform.{ENGINE}")

    track_import_embconform.unit = "seconds"
    track_import_engine.unit = "seconds"
