"""Who is measured: ATen, Inductor, and the kernels of this project, found by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from inspect import signature
from typing import Any, Final, cast

import torch
from torch.nn.functional import embedding

from embconform.backends.backend import TargetError
from embconform.backends.catalogue import catalogue
from embconform.backends.gpu.faults import range_check
from embconform.backends.gpu.kernels import Kernels
from embconform.performance.cuda_targets.inputs import Inputs
from embconform.performance.workloads import ITEM_BYTES

Call = Callable[[torch.Tensor], torch.Tensor]

ATEN, INDUCTOR = "aten", "inductor"
KERNELS: Final = {
    "triton": "embconform.backends.gpu.triton_launch:TritonKernels",
    "cuda-cpp": "embconform.backends.gpu.cuda_launch:CudaKernels",
}
FAMILIES: Final = (ATEN, INDUCTOR, *KERNELS)
DETERMINISTIC, CALLED, UNWAITED = " determ.", " call", " async"
ATOMIC: Final = "atomic"
PATHS: Final = (ATOMIC, "sorted")
"""Ways through a backward pass, timed apart for kernels that can be told which one to take."""


@dataclass(frozen=True)
class Offer:
    """A contender in a row.

    Attributes
    ----------
    name : str
        Of the family, and what is special about it.
    family : str
        One of :data:`FAMILIES`.
    make : callable
        Gives what is timed, with an index tensor as its argument; raises where it can't be had.
    """

    name: str
    family: str
    make: Callable[[], Call]

    @property
    def ours(self) -> bool:
        """Whether the targets are about it."""
        return self.family in KERNELS


def offers(inputs: Inputs, families: tuple[str, ...]) -> list[Offer]:
    """List who takes part in a row.

    Parameters
    ----------
    inputs : Inputs
    families : tuple of str

    Returns
    -------
    list of Offer
        ATen first, whom ratios are to.
    """
    found = [Offer(ATEN, ATEN, lambda: _aten(inputs))] if ATEN in families else []
    if INDUCTOR in families and inputs.row.inductor:
        found.append(Offer(INDUCTOR, INDUCTOR, lambda: _inductor(inputs)))
    for family in families:
        if family in KERNELS:
            found += _ours(family, inputs)
    return found


def get_ready(families: tuple[str, ...]) -> None:
    """Let Triton choose its interpreter where there is no device, before Inductor imports it."""
    if "triton" in families:
        with suppress(ImportError):
            import_module("embconform.backends.gpu.triton_import")


@cache
def kernels_of(name: str, path: str = "") -> Kernels:
    """Load a set of kernels.

    Parameters
    ----------
    name : str
        A key of :data:`KERNELS`.
    path : str
        One of :data:`PATHS`; empty to let the kernels choose.

    Returns
    -------
    Kernels
    """
    return cast(Kernels, _class_of(name)(path=path) if path else _class_of(name)())


def _class_of(name: str) -> Any:
    home, _, attr = KERNELS[name].partition(":")
    return getattr(import_module(home), attr)


def _takes_a_path(name: str) -> bool:
    """Say whether kernels can be told which path to take; False where they can't be loaded."""
    try:
        return "path" in signature(_class_of(name)).parameters
    except Exception:  # the contender itself says why
        return False


def function_of(name: str) -> Callable[..., Any]:
    """Load the function that users call.

    Parameters
    ----------
    name : str
        Of a backend.

    Returns
    -------
    callable
        With the signature of :func:`torch.nn.functional.embedding`.

    Raises
    ------
    TargetError
        If no such backend is listed.
    """
    if name not in catalogue():
        raise TargetError(f"no backend is called {name!r}")
    home, _, attr = catalogue()[name].path.partition(":")
    backend = getattr(import_module(home), attr)
    if backend.functional is None:
        raise TargetError(f"{name} has no functional form")
    return cast(Callable[..., Any], backend.functional)


def _aten(inputs: Inputs) -> Call:
    weight, row = inputs.weight, inputs.row
    match row.group:
        case "backward" | "equal":
            return lambda ids: _aten_backward(inputs.upstream, ids, row.rows)
        case "max_norm":
            return lambda ids: embedding(ids, weight, max_norm=inputs.max_norm)
        case _:
            return lambda ids: embedding(ids, weight)


def _looked_up(ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return embedding(ids, weight)


def _aten_backward(upstream: torch.Tensor, ids: torch.Tensor, rows: int) -> torch.Tensor:
    backward: Any = torch.ops.aten.embedding_dense_backward.default
    return cast(torch.Tensor, backward(upstream, ids, rows, -1, False))


def _inductor(inputs: Inputs) -> Call:
    """Compile the same for these sizes alone; the first call takes the time for it."""
    dynamo: Any = import_module("torch._dynamo")
    dynamo.reset()
    settings: Any = import_module("torch._inductor.config")
    settings.compile_threads = 1  # a pool of processes takes longer to start than a kernel
    options: Any = {"dynamic": False, "fullgraph": True}
    if inputs.row.group in ("backward", "equal"):
        summed = torch.compile(_aten_backward, **options)
        return lambda ids: summed(inputs.upstream, ids, inputs.row.rows)
    looked = torch.compile(_looked_up, **options)
    return lambda ids: looked(ids, inputs.weight)


def _ours(family: str, inputs: Inputs) -> Iterator[Offer]:
    """List the launches alone, and what users call where that does more."""
    group = inputs.row.group
    if group in ("backward", "equal"):
        yield Offer(family, family, partial(_scatter, family, inputs, deterministic=False))
        name = f"{family}{DETERMINISTIC}"
        yield Offer(name, family, partial(_scatter, family, inputs, deterministic=True))
        # half types are always sorted
        for path in PATHS if ITEM_BYTES[inputs.row.dtype] > 2 and _takes_a_path(family) else ():
            make = partial(_scatter, family, inputs, deterministic=False, path=path)
            yield Offer(f"{family} {path}", family, make)
        return
    yield Offer(family, family, partial(_gather, family, inputs))
    if group in ("max_norm", "check"):
        yield Offer(f"{family}{CALLED}", family, partial(_called, family, inputs))
    if group == "check":
        yield Offer(f"{family}{UNWAITED}", family, partial(_unwaited, family, inputs))


def _scatter(family: str, inputs: Inputs, *, deterministic: bool, path: str = "") -> Call:
    kernels, upstream, rows = kernels_of(family, path), inputs.upstream, inputs.row.rows
    return lambda ids: kernels.scatter(upstream, ids, rows, deterministic=deterministic)


def _gather(family: str, inputs: Inputs) -> Call:
    """Launch, and look at no report: what an index out of range would be written to is there."""
    kernels, weight, bound = kernels_of(family), inputs.weight, inputs.max_norm
    fault = torch.zeros(1, dtype=torch.int64, device=weight.device)
    report = fault
    if fault.is_cuda:
        report = torch.zeros(1, dtype=torch.int64).pin_memory()

    def gather(ids: torch.Tensor) -> torch.Tensor:
        return kernels.gather(weight, ids, fault, report)

    def renorm_and_gather(ids: torch.Tensor) -> torch.Tensor:
        kernels.check(ids, weight.shape[0], fault, report)
        kernels.renorm(weight, ids, bound, 2.0, fault)
        return kernels.gather(weight, ids, fault, report)

    return renorm_and_gather if inputs.row.group == "max_norm" else gather


def _called(family: str, inputs: Inputs) -> Call:
    function, weight = function_of(family), inputs.weight
    if inputs.row.group == "max_norm":
        return lambda ids: cast(torch.Tensor, function(ids, weight, max_norm=inputs.max_norm))
    return lambda ids: cast(torch.Tensor, function(ids, weight))


def _unwaited(family: str, inputs: Inputs) -> Call:
    function, weight = function_of(family), inputs.weight

    def call(ids: torch.Tensor) -> torch.Tensor:
        with range_check("async"):
            return cast(torch.Tensor, function(ids, weight))

    return call
