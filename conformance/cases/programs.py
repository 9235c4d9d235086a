"""The programs of a case: which calls, passes and writes follow each other on one table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st

from embconform.conformance.cases.case import (
    Backward,
    Call,
    ClearGradient,
    DoubleBackward,
    GradMode,
    Placed,
    Step,
    WriteIndices,
    WriteWeight,
)
from embconform.conformance.cases.fills import TABLE_FILLS
from embconform.conformance.cases.layouts import SHARING
from embconform.conformance.cases.structure import Structure
from embconform.reference.dtypes import Array
from embconform.reference.oracle import Options

# Making a strategy takes as long as drawing from it, and there are few different ones.
between = lru_cache(1024)(st.integers)
among = lru_cache(1024)(st.sampled_from)
EITHER: Final = st.booleans()
WITHOUT_GRAD: Final[st.SearchStrategy[tuple[GradMode, GradMode]]] = st.sampled_from(
    (("inference", "no_grad"), ("no_grad", "inference"))
)
WARM_CALLS: Final = st.sampled_from((0, 0, 1, 2, 3))
"""How many calls are made besides the first before a write: caches take what is asked for often."""
KINDS_OF_SECOND: Final = st.sampled_from(("another shape", "same shape", "same tensor"))
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Programs(ABC):
    """Puts the steps of a legal case together; a subclass draws what goes into them.

    Attributes
    ----------
    draw : callable
        Hypothesis's.
    random : callable
        Draws a seed for values.
    s : Structure
    options : Options
    table : ndarray
        The table at the start.
    """

    draw: Draw
    random: Callable[[], int]
    s: Structure
    options: Options
    table: Array

    @abstractmethod
    def indices(self, shape: tuple[int, ...] | None = None) -> Placed:
        """Draw legal indices."""

    @abstractmethod
    def upstream(self, indices: Placed) -> Placed:
        """Draw the upstream gradient of a call's output."""

    @abstractmethod
    def fresh_table(self) -> Array:
        """Draw the values of another table of this shape."""

    def program(self) -> tuple[Step, ...]:
        """Draw the steps of a legal program."""
        programs = {
            "single": self._single,
            "repeat": self._repeat,
            "accumulate": self._accumulate,
            "retain": self._retain,
            "two-uses": self._two_uses,
            "update-weight": self._update_weight,
            "update-indices": self._update_indices,
            "stale-backward": self._stale_backward,
            "double-backward": self._second_derivative,
            "served": self._served,
            "steps": self._steps,
        }
        return programs[self.s.program](Call(self.indices()))

    def _single(self, first: Call) -> tuple[Step, ...]:
        return (first, *self.backward(0, first))

    def _accumulate(self, first: Call) -> tuple[Step, ...]:
        second = Call(self.indices())
        return (first, *self.backward(0, first), second, *self.backward(2, second))

    def _retain(self, first: Call) -> tuple[Step, ...]:
        (once,) = self.backward(0, first)
        return (first, Backward((0,), once.upstream, retain_graph=True), once)

    def _two_uses(self, first: Call) -> tuple[Step, ...]:
        kind = self.draw(KINDS_OF_SECOND)
        if kind == "same tensor":
            second = Call(first.indices, reuse=0)
        else:
            shape = first.indices.values.shape if kind == "same shape" else None
            second = Call(self.indices(shape))
        upstream = (self.upstream(first.indices), self.upstream(second.indices))
        return (first, second, Backward((0, 1), upstream))

    def _update_weight(self, first: Call) -> tuple[Step, ...]:
        """Look up again after a write; twice or more before it, so that a cache is warm."""
        fresh = self.fresh_table()
        again = Call(first.indices, reuse=0)
        written = WriteWeight(self.rewritten(self.table, fresh))
        warm = () if self.options.max_norm else (again,) * self.draw(WARM_CALLS)
        passed: tuple[Step, ...] = (first, *warm, *self.backward(0, first), written, again)
        return (*passed, *self.backward(len(passed) - 1, again))

    def _update_indices(self, first: Call) -> tuple[Step, ...]:
        other = self.indices(first.indices.values.shape).values
        if first.indices.layout not in SHARING:
            other = self.rewritten(first.indices.values, other)
        again = Call(Placed(other, first.indices.layout), reuse=0)
        back = self.backward(0, first)
        # torch's sparse gradient shares the memory of the indices: it must not be kept
        cleared = (ClearGradient(),) if back else ()
        passed: tuple[Step, ...] = (first, *back, *cleared, WriteIndices(0, other), again)
        return (*passed, *self.backward(len(passed) - 1, again))

    def _stale_backward(self, first: Call) -> tuple[Step, ...]:
        other = self.indices(first.indices.values.shape).values
        return (first, WriteIndices(0, other), *self.backward(0, first))

    def _second_derivative(self, first: Call) -> tuple[Step, ...]:
        direction = TABLE_FILLS["plain"](self.table.shape, self.s.dtype, self.random())
        return (first, DoubleBackward(0, self.upstream(first.indices), direction))

    def _served(self, first: Call) -> tuple[Step, ...]:
        """Look up without grad before and after the call that is differentiated, and its step."""
        one, other = self.draw(WITHOUT_GRAD)
        before = Call(self.indices(first.indices.values.shape), context=one)
        if self.draw(EITHER):
            after = Call(self.indices(), context=other)
        else:
            after = Call(first.indices, reuse=1, context=other)
        passed: tuple[Step, ...] = (before, first, after, *self.backward(1, first))
        if self.s.weight_layout in SHARING or self.draw(EITHER):
            return passed
        written = WriteWeight(self.rewritten(self.table, self.fresh_table()))
        return (*passed, written, Call(first.indices, reuse=1, context=one))

    def _steps(self, first: Call) -> tuple[Step, ...]:
        """Train for three steps: other indices, of other shapes, on a table that moves."""
        steps: list[Step] = []
        for number in range(3):
            call = Call(self.indices()) if number else first
            steps.append(call)
            steps += self.backward(len(steps) - 1, call)
            if number == 2:
                break
            if self.draw(EITHER):
                steps.append(ClearGradient())
            table = self.fresh_table()
            steps.append(WriteWeight(self.rewritten(self.table, table)))
        return tuple(steps)

    def rewritten(self, before: Array, after: Array) -> Array:
        """Mix what is written in place: everything, or one row or element, wherever it is."""
        if before.ndim == 0 or not before.size or self.draw(EITHER):
            return after
        mixed = before.copy()
        place = np.unravel_index(self.random() % before.size, before.shape)
        where = place if self.draw(EITHER) else place[:1]
        mixed[where] = after[where]
        return mixed

    def _repeat(self, first: Call) -> tuple[Step, ...]:
        again = Call(first.indices, reuse=0)
        if self.s.mode != "grad":
            return (first, again)
        (back,) = self.backward(0, first)
        passed = (first, back, ClearGradient())
        if not self.options.max_norm:
            return (*passed, again, Backward((3,), back.upstream))
        restored = WriteWeight(self.table)  # max_norm is not idempotent to the bit
        return (*passed, restored, again, Backward((4,), back.upstream))

    def backward(self, position: int, call: Call) -> tuple[Backward, ...]:
        """Draw the backward step of a call, or none where the mode has none."""
        if self.s.mode != "grad":
            return ()
        return (Backward((position,), (self.upstream(call.indices),)),)
