"""The same workloads under pytest-benchmark: ``pytest benchmarks/``, grouped by workload.

pytest-benchmark's clock runs here, so that its tools for saving and comparing can be used; the
numbers that asv and embconform bench show come from embconform.performance.measure alone. The
result of each cell is held against the oracle all the same.
"""

from itertools import cycle


def test_pass(benchmark, cell_name):
    """Time one pass of one backend on one workload."""
    import numpy as np
    import pytest
    import torch

    from embconform.backends.backend import TargetError
    from embconform.backends.targets import resolve
    from embconform.performance.checking import Oracle, Timed
    from embconform.performance.passes import PASSES, make_inputs, prepare
    from embconform.performance.workloads import find, fit

    torch.set_num_threads(1)
    workload_name, pass_name, backend_name = cell_name
    try:
        backend = resolve(backend_name)
    except TargetError as error:
        pytest.skip(str(error))
    (workload,) = map(fit, find(workload_name))
    chosen = PASSES[pass_name]
    missing = chosen.needs(workload) - backend.able
    if missing:
        pytest.skip(f"{backend_name} has no {', '.join(sorted(missing))}")
    inputs = make_inputs(workload, "cpu", 0)
    if backend.prepare:
        backend.prepare()
    work = prepare(backend, chosen, inputs)
    turns = cycle(range(len(inputs.indices)))
    benchmark.group = f"{workload_name} {pass_name}"
    if work.before is None:
        output = benchmark(lambda: work.run(inputs.indices[next(turns)]))
        turn = (next(turns) - 1) % len(inputs.indices)
    else:
        last = []

        def setup():
            work.release()
            last[:] = [next(turns)]
            work.before(inputs.indices[last[0]])
            return (inputs.indices[last[0]],), {}

        output = benchmark.pedantic(work.run, setup=setup, rounds=10, warmup_rounds=2)
        turn = last[0]
    oracle = Oracle(chosen, inputs, np.random.default_rng(0))
    assert oracle.wrong_with(Timed(turn, output), work, backend.profiles[0]) == ""
