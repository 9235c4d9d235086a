"""Give pytest's benchmarks a test for each cell, and ids that can be compared from run to run."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])


def pytest_generate_tests(metafunc):
    """Make a test of each workload, pass and backend of the profile."""
    if "cell_name" not in metafunc.fixturenames:
        return
    if ROOT not in sys.path:
        sys.path.insert(0, ROOT)
    from benchmarks.common import BACKENDS, PASSES, WORKLOADS

    cells = [
        (workload, name, backend)
        for workload in WORKLOADS
        for name in PASSES
        for backend in BACKENDS
    ]
    metafunc.parametrize("cell_name", cells, ids=["-".join(cell) for cell in cells])
