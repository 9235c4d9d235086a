"""Passes: what is timed of an embedding, and what is done before the clock starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from embconform.backends.backend import Backend
from embconform.performance.ids import Ids
from embconform.performance.workloads import Workload
from embconform.reference.oracle import Options

LEARNING_RATE: Final = 2.0**-7
ROTATION: Final = 4
"""Index tensors that a timed loop goes round, so that no call is the same as the last."""

_DRAWN: Final = 2**24 - 3


@dataclass(frozen=True, slots=True)
class Pass:
    """What is timed.

    Attributes
    ----------
    name : str
    summary : str
        What happens while the clock runs.
    gradient : bool
        Whether it differentiates.
    options : tuple of str
        The options of the embedding that it needs.
    """

    name: str
    summary: str
    gradient: bool = False
    options: tuple[str, ...] = ()

    def needs(self, workload: Workload) -> frozenset[str]:
        """Name what a backend must be able to do, as :attr:`Backend.able` names it."""
        return (
            frozenset(self.options)
            | ({"gradient"} if self.gradient else set())
            | ({"padding_idx"} if workload.padding else set())
        )

    def embedding_options(self, workload: Workload) -> Options:
        """Give the options of the call; max_norm is near the median norm of the rows."""
        renormed = "max_norm" in self.options
        return Options(
            padding_idx=workload.padding_idx,
            max_norm=math.sqrt(workload.width) if renormed else None,
            scale_grad_by_freq="scale_grad_by_freq" in self.options,
            sparse="sparse" in self.options,
        )


PASSES: Final = {
    entry.name: entry
    for entry in (
        Pass("forward", "the lookup, without a graph"),
        Pass("backward", "the backward pass alone, dense gradient", gradient=True),
        Pass("sparse", "the backward pass alone, sparse gradient", True, ("sparse",)),
        Pass("max_norm", "the lookup; half of the rows are renormed", False, ("max_norm",)),
        Pass("scale", "the backward pass alone, scaled", True, ("scale_grad_by_freq",)),
        Pass("sgd", "forward, backward and a step of torch.optim.SGD", gradient=True),
    )
}


@dataclass
class Inputs:
    """What all targets of a cell share.

    Attributes
    ----------
    workload : Workload
    ids : list of ndarray of int64, shape (count,)
        :data:`ROTATION` draws.
    indices : list of Tensor of int64, shape (count,)
        The same on the device.
    weight, upstream : Tensor, shapes (V, d) and (count, d)
        Without a graph.
    dirty : list of Tensor
        The indices of calls that have changed the table since it was last put back.
    saved : dict
        For the index tensor of each identity, its rows and what the table holds there.
    """

    workload: Workload
    ids: list[Ids]
    indices: list[torch.Tensor]
    weight: torch.Tensor
    upstream: torch.Tensor
    dirty: list[torch.Tensor] = field(default_factory=list)
    saved: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def save(self) -> None:
        """Keep copies of all rows that calls may change, unless they are kept already."""
        if self.saved:
            return
        for indices in self.indices:
            rows = torch.unique(indices)
            self.saved[id(indices)] = rows, self.weight[rows]

    def restore(self) -> None:
        """Put rows back that calls have changed, whichever target made them."""
        for indices in self.dirty:
            rows, values = self.saved[id(indices)]
            self.weight.index_copy_(0, rows, values)
        self.dirty.clear()

    def disturb(self, rng: np.random.Generator) -> None:
        """Change a value that each draw looks up and one that each backward pass adds.

        An answer kept from an earlier call is wrong from then on.
        """
        first = torch.stack([indices[0] for indices in self.indices])
        self.weight[first, 0] = float(rng.standard_normal())
        self.upstream[0, 0] = float(rng.standard_normal())


def make_inputs(workload: Workload, device: str, seed: int) -> Inputs:
    """Draw everything that a cell needs.

    Parameters
    ----------
    workload : Workload
        That fits the memory.
    device : str
    seed : int

    Returns
    -------
    Inputs
    """
    rng = np.random.default_rng(seed)
    ids = [workload.draw(rng) for _ in range(ROTATION)]
    generator = torch.Generator(device).manual_seed(seed)
    dtype = getattr(torch, workload.dtype)
    weight, upstream = (
        _normal(rows, workload.width, dtype, generator) for rows in (workload.rows, workload.count)
    )
    indices = [torch.from_numpy(draw.copy()).to(device) for draw in ids]
    return Inputs(workload, ids, indices, weight, upstream)


def _normal(rows: int, width: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Draw a table; beyond :data:`_DRAWN` values they come again, as a copy is faster.

    No two of its first :data:`_DRAWN` rows are the same, because that is a prime.
    """
    table = torch.empty((rows, width), dtype=dtype, device=generator.device)
    drawn, *others = torch.split(table.view(-1), _DRAWN)
    drawn.normal_(generator=generator)
    for part in others:
        part.copy_(drawn[: len(part)])
    return table


@dataclass
class Work:
    """A pass of one target on shared inputs; `run` is what is timed.

    Attributes
    ----------
    run : callable
        Takes one index tensor; what it returns is kept for the check.
    before : callable or None
        Called with the same tensor before each timed call, off the clock; None where calls can
        follow each other.
    weight : Tensor
        The leaf.
    synchronize : callable or None
        Waits for what the target has started; called on the clock.
    writes : bool
        Whether a call changes the table.
    """

    run: Callable[[torch.Tensor], Any]
    before: Callable[[torch.Tensor], None] | None
    weight: torch.Tensor
    synchronize: Callable[[], None] | None = None
    writes: bool = False

    def release(self) -> None:
        """Let go of gradients."""
        self.weight.grad = None


def prepare(backend: Backend, chosen: Pass, inputs: Inputs) -> Work:
    """Get a target ready for a pass.

    Parameters
    ----------
    backend : Backend
        Able to do what the pass needs.
    chosen : Pass
    inputs : Inputs
        Its weight's memory is shared by all targets; passes that write to it put it back.

    Returns
    -------
    Work
    """
    weight = inputs.weight.detach().requires_grad_(chosen.gradient)
    embed, weight = _embedding(backend, chosen.embedding_options(inputs.workload), weight)
    if chosen.name == "sgd":
        run, before = _step(embed, weight, inputs)
    elif chosen.gradient:
        run, before = _backward(embed, weight, inputs)
    else:
        run, before = embed, None
    work = Work(run, before, weight, backend.synchronize)
    if chosen.name in ("max_norm", "sgd"):
        _put_rows_back(work, inputs)
    return work


def _embedding(
    backend: Backend, options: Options, weight: torch.Tensor
) -> tuple[Callable[[torch.Tensor], Any], torch.Tensor]:
    """Bind weight and options; a module is used where there is no function."""
    plain = Options()
    given: dict[str, Any] = {
        name: getattr(options, name)
        for name in Options.__dataclass_fields__
        if getattr(options, name) != getattr(plain, name)
    }
    functional = backend.functional
    if functional is not None:
        return lambda indices: functional(indices, weight, **given), weight
    assert backend.module is not None
    module = backend.module(*weight.shape, dtype=weight.dtype, **given).to(weight.device)
    parameter = torch.nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    module.weight = parameter
    return module, parameter


def _backward(
    embed: Callable[[torch.Tensor], Any], weight: torch.Tensor, inputs: Inputs
) -> tuple[Callable[[torch.Tensor], Any], Callable[[torch.Tensor], None]]:
    """Time the backward pass alone: gradient cleared and graph built off the clock."""
    upstream = [inputs.upstream]
    output: list[Any] = []

    def before(indices: torch.Tensor) -> None:
        weight.grad = None
        output[:] = [embed(indices)]

    def run(_: torch.Tensor) -> Any:
        torch.autograd.backward(output, upstream)
        return None

    return run, before


def _step(
    embed: Callable[[torch.Tensor], Any], weight: torch.Tensor, inputs: Inputs
) -> tuple[Callable[[torch.Tensor], Any], Callable[[torch.Tensor], None]]:
    """Time a training step; the gradient of the last one is cleared off the clock."""
    upstream = [inputs.upstream]
    optimiser = torch.optim.SGD([weight], lr=LEARNING_RATE)

    def before(_: torch.Tensor) -> None:
        weight.grad = None

    def run(indices: torch.Tensor) -> Any:
        torch.autograd.backward([embed(indices)], upstream)
        optimiser.step()
        return None

    return run, before


def _put_rows_back(work: Work, inputs: Inputs) -> None:
    """Restore before each call the rows that calls change, so that each finds the same table."""
    inputs.save()
    work.writes = True
    prepare_call = work.before

    def before(indices: torch.Tensor) -> None:
        inputs.restore()
        inputs.dirty.append(indices)
        if prepare_call is not None:
            prepare_call(indices)

    work.before = before
