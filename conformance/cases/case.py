"""A case: everything that is done to the embedding under test, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, get_args

import numpy as np

from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array
from embconform.reference.oracle import Options

Layout = Literal[
    "contiguous",
    "transposed",
    "sliced",
    "stepped",
    "offset",
    "expanded",
    "spread",
    "broadcast",
    "swapped",
    "windows",
    "rows",
    "columns",
    "pooled",
    "paired",
    "uneven",
    "split",
]
GradMode = Literal["grad", "frozen", "no_grad", "inference", "served"]
"""What the table requires and the context of the calls; served: frozen, in inference mode."""
FROZEN: Final = ("frozen", "served")
GRAD_MODES: Final[tuple[GradMode, ...]] = get_args(GradMode)
MODE_WORDS: Final[dict[GradMode, str]] = {
    "grad": "of a trained table",
    "frozen": "of a frozen table",
    "no_grad": "under no_grad",
    "inference": "under inference_mode",
    "served": "of a frozen table under inference_mode",
}
Entry = Literal["functional", "module"]


@dataclass(frozen=True, eq=False)
class Placed:
    """A tensor as plain data: its values, and how they lie in memory."""

    values: Array
    layout: Layout = "contiguous"


@dataclass(frozen=True, eq=False)
class Call:
    """Call the embedding.

    Attributes
    ----------
    indices : Placed
    reuse : int or None
        Number of an earlier call whose index tensor, the same object, is passed again;
        `indices` then holds what that tensor reads as at this point.
    must_raise : bool
        Whether the call has to be refused.
    context : GradMode or None
        The grad mode of the call, where it is not the case's.
    """

    indices: Placed
    reuse: int | None = None
    must_raise: bool = False
    context: GradMode | None = None


@dataclass(frozen=True, eq=False)
class Backward:
    """Back-propagate through the outputs of one or more calls at once."""

    calls: tuple[int, ...]
    upstream: tuple[Placed, ...]
    retain_graph: bool = False


@dataclass(frozen=True, eq=False)
class DoubleBackward:
    """Differentiate <gradient, direction> with respect to the upstream gradient of a call."""

    call: int
    upstream: Placed
    direction: Array


@dataclass(frozen=True, eq=False)
class ClearGradient:
    """Set the gradient of the table to None."""


@dataclass(frozen=True, eq=False)
class WriteWeight:
    """Overwrite the table in place."""

    values: Array


@dataclass(frozen=True, eq=False)
class WriteIndices:
    """Overwrite, in place, the index tensor of a call."""

    call: int
    values: Array


Step = Call | Backward | DoubleBackward | ClearGradient | WriteWeight | WriteIndices


@dataclass(frozen=True, eq=False)
class Case:
    """A table, options, and the steps taken with them.

    Attributes
    ----------
    stratum : str
        The stratum that it was drawn from.
    profile : Profile
    weight : Placed
        Shape (V, d), but for cases that must be refused.
    options : Options
        As passed: padding_idx may be negative.
    mode : GradMode
    entry : Entry
    steps : tuple of Step
    deterministic : bool
        Whether torch.use_deterministic_algorithms is on.
    """

    stratum: str
    profile: Profile
    weight: Placed
    options: Options
    mode: GradMode
    entry: Entry
    steps: tuple[Step, ...]
    deterministic: bool = False

    @property
    def dtype(self) -> str:
        """NumPy's name of the table's dtype."""
        return self.weight.values.dtype.name

    @property
    def rows(self) -> int:
        """Number of rows of the table."""
        shape = self.weight.values.shape
        return shape[0] if shape else 0

    @cached_property
    def calls(self) -> tuple[tuple[int, Call], ...]:
        """The calls with their positions among the steps."""
        return tuple((k, step) for k, step in enumerate(self.steps) if isinstance(step, Call))

    def is_silent(self, position: int) -> bool:
        """Tell whether a write to indices goes by their version counter, as NumPy's do.

        Every other one does, by its values, where no graph needs the indices as they were.
        """
        step = self.steps[position]
        if not isinstance(step, WriteIndices) or int(step.values.sum()) % 2:
            return False
        later = (other for other in self.steps[position:] if isinstance(other, Backward))
        return not any(call < position for other in later for call in other.calls)

    @property
    def most_indices(self) -> int:
        """The largest number of indices in a call."""
        return max((int(np.size(step.indices.values)) for _, step in self.calls), default=0)

    @property
    def nbytes(self) -> int:
        """About how many bytes it and its outcome take."""
        table = self.weight.values
        width = table.shape[-1] if table.ndim else 1
        per_call = self.most_indices * (8 + 8 * width)
        steps = len(self.steps)
        return int(np.size(table) * 8 * (1 + steps) + steps * per_call) + 2000

    @property
    def cost(self) -> int:
        """How hard the case is to read: indices, table elements, steps, and what is not plain."""
        elements = self.most_indices + int(np.size(self.weight.values))
        plain = (
            (self.weight.layout != "contiguous")
            + (self.options != Options())
            + (self.mode != "grad")
            + (self.entry != "functional")
            + sum(step.indices.layout != "contiguous" for _, step in self.calls)
        )
        return elements + len(self.steps) + 8 * plain


def keyword_options(options: Options) -> dict[str, Any]:
    """Give the options that are not at their default as keyword arguments."""
    plain = Options()
    return {
        name: getattr(options, name)
        for name in Options.__dataclass_fields__
        if getattr(options, name) != getattr(plain, name)
    }
