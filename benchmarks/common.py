"""What the classes share: names, sizes, and one measurement that all their numbers come from."""

import os
from contextlib import suppress
from importlib import import_module

ALL_BACKENDS = ("eager", "textbook", "compile")
ALL_WORKLOADS = (
    "bert-batch-zipf-float32",
    "bert-batch-zipf-pad30-float32",
    "gpt2-token-zipf-float32",
    "movielens-users-batch-uniform-float32",
)
ALL_PASSES = ("forward", "backward", "sparse", "max_norm", "scale", "sgd")
DEVICES = ("cpu", "cuda")
THREADS = 1
SEED = 0

PROFILE = os.environ.get("EMBCONFORM_BENCHMARKS", "regular")
"""``regular``, or ``quick``: one workload, two passes, two backends, short times."""
if PROFILE not in ("regular", "quick"):
    raise ValueError(f"EMBCONFORM_BENCHMARKS={PROFILE}: it is regular or quick")
QUICK = PROFILE == "quick"
BACKENDS = ALL_BACKENDS[:2] if QUICK else ALL_BACKENDS
WORKLOADS = ALL_WORKLOADS[3:] if QUICK else ALL_WORKLOADS
PASSES = ALL_PASSES[:2] if QUICK else ALL_PASSES
SECONDS = 0.1 if QUICK else 0.4
"""A backend and cell, at least; slow cells take longer for their fewest rounds."""


USED = (
    "backends.backend",
    "backends.targets",
    "conformance.quiet",
    "performance.floors",
    "performance.measure",
    "performance.passes",
    "performance.render.json",
    "performance.workloads",
)
"""Modules of embconform that a measurement needs; older commits have some of them elsewhere."""


def needs(*modules):
    """Skip a benchmark of a commit that lacks a module of embconform.

    Raises
    ------
    NotImplementedError
        asv shows it as skipped where a ``setup`` raises it.
    """
    for module in modules:
        try:
            import_module(f"embconform.{module}")
        except ModuleNotFoundError as error:
            raise NotImplementedError(f"this commit has no {error.name}") from error


def why_not(device):
    """Say why a device can't be measured here, or nothing."""
    try:
        needs(*USED)
    except NotImplementedError as error:
        return str(error)
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device"
    return ""


def measure_all():
    """Measure every cell of the profile once, the backends interleaved.

    Returns
    -------
    dict
        Under (backend, workload, pass, device) what ``embconform bench --json`` writes of it, and
        under the name of a device alone why it can't be measured.
    """
    found = {device: why_not(device) for device in DEVICES}
    for device in DEVICES:
        if not found[device]:
            for name in WORKLOADS:
                for result in _measure(name, device):
                    key = (result["target"], result["workload"], result["pass"], device)
                    found[key] = result
    return found


def _measure(name, device):
    """Measure the passes of one workload."""
    from embconform.conformance.quiet import captured_output
    from embconform.performance import passes
    from embconform.performance.floors import Bandwidth
    from embconform.performance.measure import Cell, measure
    from embconform.performance.render.json import result_dict
    from embconform.performance.workloads import find, fit, free_memory

    targets = list(_targets())
    bandwidth = Bandwidth(device, threads=THREADS)
    (workload,) = find(name)
    with captured_output():
        for pass_name in PASSES:
            cell = Cell(fit(workload, free_memory(device)), passes.PASSES[pass_name], device=device)
            for result in measure(
                cell,
                targets,
                bandwidth=bandwidth,
                seconds=SECONDS,
                seed=SEED,
                threads=THREADS,
            ):
                plain = result_dict(result)
                del plain["samples"]
                yield plain


def _targets():
    """Make targets of the backends that can run here."""
    from embconform.backends.backend import TargetError
    from embconform.backends.targets import resolve
    from embconform.performance.measure import Target

    for name in BACKENDS:
        with suppress(TargetError):
            yield Target(name, resolve(name))


def look_up(results, key):
    """Give one result, or say that it is to be skipped.

    Parameters
    ----------
    results : dict
        What :func:`measure_all` gave.
    key : tuple of str
        Backend, workload, pass, device.

    Returns
    -------
    dict

    Raises
    ------
    NotImplementedError
        Where device or backend aren't there, or the backend can't do it; asv shows it as skipped.
    """
    reason = results.get(key[3], "")
    if reason:
        raise NotImplementedError(reason)
    if key not in results:
        raise NotImplementedError(f"{key[0]} can't run here")
    found = results[key]
    if found["status"] == "unsupported":
        raise NotImplementedError(found["detail"])
    return found
