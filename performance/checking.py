"""Hold the outputs of timed runs against the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from embconform.performance.ids import Ids
from embconform.performance.passes import LEARNING_RATE, Inputs, Pass, Work
from embconform.reference.bounds import relative
from embconform.reference.clause import Profile
from embconform.reference.dtypes import format_of
from embconform.reference.gradients import Gradient, gradient
from embconform.reference.oracle import F64, Options, bound_rows

MOST_ELEMENTS: Final = 500_000
"""Elements that are compared; which rows and columns is drawn after the run."""


@dataclass(frozen=True)
class Timed:
    """A timed call as it was left: which indices, what it returned."""

    turn: int
    output: Any


@dataclass(frozen=True)
class Oracle:
    """What timed calls of a cell are held against.

    Attributes
    ----------
    chosen : Pass
    inputs : Inputs
    rng : numpy.random.Generator
        Draws what is compared; a target can't know it.
    """

    chosen: Pass
    inputs: Inputs
    rng: np.random.Generator

    def wrong_with(self, timed: Timed, work: Work, profile: Profile) -> str:
        """Compare what a timed call did with what it must do.

        Parameters
        ----------
        timed : Timed
        work : Work
            The target, as the call left it.
        profile : Profile

        Returns
        -------
        str
            One line; empty where nothing is wrong.
        """
        options = self.chosen.embedding_options(self.inputs.workload)
        if self.chosen.gradient:
            return self._gradient(timed, work, options, profile)
        return self._output(timed, work, options, profile)

    def _output(self, timed: Timed, work: Work, options: Options, profile: Profile) -> str:
        inputs, output, ids = self.inputs, timed.output, self.inputs.ids[timed.turn]
        width, dtype = inputs.workload.width, work.weight.dtype
        if type(output) is not torch.Tensor:
            kind = type(output).__name__
            return f"returned {kind}, not torch.Tensor: its values may be due later"
        if tuple(output.shape) != (len(ids), width) or output.dtype != dtype:
            return f"returned {tuple(output.shape)} of {output.dtype}"
        places = _sample(len(ids), width, self.rng)
        seen = output.detach()[torch.from_numpy(places).to(output.device)].cpu()
        rows = ids[places]
        masked = np.zeros(len(rows), np.bool_)
        if profile is Profile.TEXTBOOK and options.padding_idx is not None:
            masked = rows == options.padding_idx
        if options.max_norm is None:
            exact = _rows(inputs.weight, rows)
            exact[torch.from_numpy(masked)] = 0
            wrong = int((_bits(seen) != _bits(exact)).sum())
            return f"{wrong} elements are not their rows'" if wrong else ""
        before = _before(inputs, timed.turn, rows)
        bounded = bound_rows(before, options, profile, format_of(inputs.workload.dtype))
        values = np.where(masked[:, None], 0.0, bounded.values)
        where = np.broadcast_to(~bounded.open[:, None], values.shape)
        return _beyond(seen.double().numpy(), values, bounded.bound, where, "output")

    def _gradient(self, timed: Timed, work: Work, options: Options, profile: Profile) -> str:
        inputs, seen, ids = self.inputs, work.weight.grad, self.inputs.ids[timed.turn]
        if seen is None:
            return "left no gradient"
        if seen.shape != work.weight.shape:
            return f"left a gradient of shape {tuple(seen.shape)}"
        if seen.is_sparse is not options.sparse:
            return f"left a gradient of layout {seen.layout}"
        columns = _sample(inputs.workload.width, len(ids), self.rng)
        named, exact = self._exact(ids, _columns(inputs.upstream, columns), profile)
        got, others = _dense(seen, named, columns)
        if others:
            return f"{others} elements of the gradient stand in rows that no index names"
        wrong = _beyond(got, exact.values, exact.bound, ~exact.open, "gradient")
        if wrong or self.chosen.name != "sgd":
            return wrong
        before = _before(inputs, timed.turn, named)[:, columns]
        return _stepped(work, before, named, columns, exact)

    def largest_error(self, turn: int, work: Work, profile: Profile) -> float:
        """Tell how far the gradient that a call left is from the exact one.

        Parameters
        ----------
        turn : int
            Which indices the call had.
        work : Work
        profile : Profile

        Returns
        -------
        float
            The largest error, in ulp of the exact value or, where terms cancel, of the root of the
            sum of their squares, which is the size that such a sum has without that luck.
        """
        assert self.chosen.gradient
        ids, seen = self.inputs.ids[turn], work.weight.grad
        assert seen is not None
        columns = _sample(self.inputs.workload.width, len(ids), self.rng)
        upstream = _columns(self.inputs.upstream, columns)
        named, exact = self._exact(ids, upstream, profile)
        _, squares = self._exact(ids, upstream**2, profile)
        options = self.chosen.embedding_options(self.inputs.workload)
        roots = np.sqrt(squares.values)
        if options.scale_grad_by_freq:  # both are over the count, and its root is too much
            roots /= np.sqrt(np.maximum(exact.counts, 1))[:, None]
        size = np.maximum(np.abs(exact.values), roots)
        got, _ = _dense(seen, named, columns)
        error = np.abs(got - exact.values)
        judged = ~exact.open & (size > 0)
        ulp = 2 * _unit_roundoff(work.weight) * 2.0 ** np.floor(np.log2(size[judged]))
        return float((error[judged] / ulp).max(initial=0.0))

    def _exact(
        self, ids: Ids, upstream: F64, profile: Profile
    ) -> tuple[NDArray[np.int64], Gradient]:
        """Give the rows that indices name, and the exact gradient of these alone."""
        options = self.chosen.embedding_options(self.inputs.workload)
        named, compact = np.unique(ids, return_inverse=True)
        padded = options.padding_idx is not None and options.padding_idx in named
        exact = gradient(
            np.zeros((len(named), upstream.shape[1])),
            compact,
            upstream,
            options=Options(
                padding_idx=0 if padded else None, scale_grad_by_freq=options.scale_grad_by_freq
            ),
            profile=profile,
            form=format_of(self.inputs.workload.dtype),
        )
        return named, exact


def _stepped(
    work: Work, rows: F64, named: NDArray[np.int64], columns: NDArray[np.int64], exact: Gradient
) -> str:
    """Compare the table after a step with weight - lr * gradient."""
    now = _rows(work.weight.detach(), named).double().numpy()[:, columns]
    u = _unit_roundoff(work.weight)
    size = np.abs(rows) + LEARNING_RATE * np.abs(exact.values)
    bound = LEARNING_RATE * exact.bound + relative(3.0, u) * size
    return _beyond(now, rows - LEARNING_RATE * exact.values, bound, ~exact.open, "stepped table")


def _dense(
    seen: torch.Tensor, named: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[F64, int]:
    """Read the rows that are named, and count what is not zero elsewhere."""
    if not seen.is_sparse:
        rows = seen[torch.from_numpy(named).to(seen.device)]
        others = int(seen.count_nonzero()) - int(rows.count_nonzero())
        return _columns(rows, columns), others
    entries, where = _columns(seen._values(), columns), seen._indices()[0].cpu().numpy()
    places = np.minimum(np.searchsorted(named, where), len(named) - 1)
    ours = named[places] == where
    sums = np.zeros((len(named), len(columns)))
    np.add.at(sums, places[ours], entries[ours])
    return sums, int(np.count_nonzero(entries[~ours]))


def _before(inputs: Inputs, turn: int, rows: NDArray[np.int64]) -> F64:
    """Give rows as they were before a call that changes them."""
    unique, values = inputs.saved[id(inputs.indices[turn])]
    places = np.searchsorted(unique.cpu().numpy(), rows)
    return np.asarray(_rows(values, places).double().numpy())


def _rows(table: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
    """Copy rows out with NumPy's indexing, bit for bit."""
    if table.device.type != "cpu":
        table = table[torch.from_numpy(rows).to(table.device)].cpu()
        rows = np.arange(len(rows))
    carried = _bits(table).numpy()
    return torch.from_numpy(carried[rows]).view(table.dtype)


def _unit_roundoff(tensor: torch.Tensor) -> float:
    return format_of(str(tensor.dtype).removeprefix("torch.")).unit_roundoff


def _columns(tensor: torch.Tensor, columns: NDArray[np.int64]) -> F64:
    chosen = tensor.detach()[:, torch.from_numpy(columns).to(tensor.device)]
    return np.asarray(chosen.cpu().double().numpy())


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    carrier = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().view(carrier)


def _sample(count: int, other: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw as many of `count` as keep within :data:`MOST_ELEMENTS`, in order and 0 among them."""
    most = max(1, MOST_ELEMENTS // max(other, 1))
    if count <= most:
        return np.arange(count)
    others = 1 + rng.choice(count - 1, most - 1, replace=False)
    return np.concatenate([[0], np.sort(others)]).astype(np.int64)


def _beyond(got: F64, exact: F64, bound: F64, where: NDArray[np.bool_], name: str) -> str:
    with np.errstate(invalid="ignore"):
        wrong = where & ~(np.abs(got - exact) <= bound)
    if not wrong.any():
        return ""
    place = tuple(np.argwhere(wrong)[0])
    return (
        f"{int(wrong.sum())} elements of the {name} are beyond their error bound, such as "
        f"{float(got[place])!r} for {float(exact[place])!r} ± {float(bound[place]):.3g}"
    )
