"""Programs of many steps in any order: calls, passes, writes and refused calls on one table."""

from __future__ import annotations

from typing import Final

import numpy as np

from embconform.conformance.cases.case import (
    Backward,
    Call,
    ClearGradient,
    GradMode,
    Placed,
    Step,
    WriteIndices,
    WriteWeight,
)
from embconform.conformance.cases.layouts import SHARING
from embconform.conformance.cases.programs import Programs, among, between
from embconform.reference.dtypes import Array

LENGTH: Final = between(4, 14)
"""Steps between the first call and the last pass."""
CONTEXTS: Final[tuple[GradMode | None, ...]] = (None, None, None, "no_grad", "inference")
KINDS: Final = (
    "same shape",
    "another shape",
    "same tensor",
    "permuted",
    "nearly the same",
    "equal",
)
"""How the indices of a call differ from those of one before."""
TOGETHER: Final = 3
"""Most calls of a backward pass."""


class Wandering:
    """Draws such a program.

    Parameters
    ----------
    programs : Programs
        Draws indices, upstream gradients and tables.
    first : Call
    """

    def __init__(self, programs: Programs, first: Call) -> None:
        self._of, self._draw = programs, programs.draw
        self._trains = programs.s.mode == "grad"
        self._steps: list[Step] = []
        self._ids: dict[int, Placed] = {}
        self._pending: dict[int, int] = {}
        self._add(first)

    def draw(self) -> tuple[Step, ...]:
        """Draw the steps."""
        actions = (self._call, self._call, self._pass, self._write, self._rewrite, self._refused)
        for _ in range(self._draw(LENGTH)):
            self._draw(among(actions))()
        self._call()
        self._pass()
        return tuple(self._steps)

    def _add(self, call: Call) -> None:
        """Call, and remember whose tensor was given and what may be differentiated."""
        position = len(self._steps)
        owner = position if call.reuse is None else call.reuse
        self._steps.append(call)
        self._ids[owner] = call.indices
        if self._trains and call.context is None:
            self._pending[position] = owner

    def _call(self) -> None:
        context = self._draw(among(CONTEXTS))
        owner = self._draw(among(tuple(self._ids)))
        kind, before = self._draw(among(KINDS)), self._ids[owner]
        if kind == "same tensor":
            self._add(Call(before, reuse=owner, context=context))
        elif kind == "another shape":
            self._add(Call(self._of.indices(), context=context))
        else:
            self._add(Call(self._alike(before, kind), context=context))

    def _alike(self, before: Placed, kind: str) -> Placed:
        """Draw indices of the same shape, in a tensor of their own."""
        fresh = self._of.indices(before.values.shape)
        if kind == "same shape" or before.layout in SHARING or fresh.layout in SHARING:
            return fresh
        values = before.values.reshape(-1).copy()
        if kind == "permuted":
            values = np.random.default_rng(self._of.random()).permutation(values)
        elif kind == "nearly the same" and values.size:
            place = self._of.random() % values.size
            values[place] = fresh.values.reshape(-1)[place]
        return Placed(values.reshape(before.values.shape), before.layout)

    def _pass(self) -> None:
        """Differentiate the last calls or some before them, once or once more."""
        open_ = list(self._pending)
        if not open_:
            return
        count = self._draw(between(1, min(TOGETHER, len(open_))))
        calls = tuple(open_[-count:] if self._draw(between(0, 1)) else open_[:count])
        retain = self._draw(between(0, 3)) == 3
        upstream = tuple(self._of.upstream(self._indices(call)) for call in calls)
        self._steps.append(Backward(calls, upstream, retain_graph=retain))
        if not retain:
            for call in calls:
                del self._pending[call]
        if self._draw(between(0, 1)):
            self._steps.append(ClearGradient())

    def _indices(self, call: int) -> Placed:
        step = self._steps[call]
        assert isinstance(step, Call)
        return step.indices

    def _write(self) -> None:
        if self._of.s.weight_layout not in SHARING:
            table: Array = self._of.fresh_table()
            self._steps.append(WriteWeight(self._of.rewritten(self._of.table, table)))

    def _rewrite(self) -> None:
        """Write to indices that no graph needs any more, and look them up."""
        owner = self._draw(among(tuple(self._ids)))
        before = self._ids[owner]
        if before.layout in SHARING or owner in self._pending.values():
            return
        other = self._of.indices(before.values.shape).values
        if self._trains:
            # torch's sparse gradient shares the memory of the indices: it must not be kept
            self._steps.append(ClearGradient())
        self._steps.append(WriteIndices(owner, other))
        self._add(Call(Placed(other, before.layout), reuse=owner))

    def _refused(self) -> None:
        """Make a call that must be refused, where the structure has one."""
        if self._of.s.fault != "too-large":
            return
        good = self._of.indices()
        if good.values.size and good.layout not in SHARING:
            bad = good.values.copy()
            bad.reshape(-1)[self._of.random() % bad.size] = len(self._of.table)
            self._steps.append(Call(Placed(bad, good.layout), must_raise=True))
