"""What was seen when a case was run, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embconform.reference.dtypes import Array

LONGEST = 200
"""Characters of an exception's message that reports show."""
NO_MEMORY = ("MemoryError", "allocate memory", "out of memory", "RESOURCE_EXHAUSTED")
"""What an exception says where there was too little memory for what the target does."""


@dataclass(frozen=True, eq=False)
class Raised:
    """An exception: its type, the names of all its bases, and its message."""

    type: str
    bases: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        text = " ".join(self.message.split())
        if not text:
            return self.type
        return f"{self.type}: {text[:LONGEST]}{'…' if len(text) > LONGEST else ''}"

    @property
    def short_of_memory(self) -> bool:
        """Whether there was too little memory for what the target does."""
        return any(word in str(self) for word in NO_MEMORY)


def raised_from(error: BaseException) -> Raised:
    """Describe an exception as plain data."""
    bases = tuple(base.__name__ for base in type(error).__mro__)
    try:
        message = str(error)
    except Exception:
        message = "(an exception whose text can't be had)"
    return Raised(type(error).__name__, bases, message)


@dataclass(frozen=True)
class Lost:
    """How a target was lost: its process died, or was killed because it was late.

    Attributes
    ----------
    kind : str
        ``crash`` or ``timeout``.
    detail : str
        What was seen of it, such as ``the process died of SIGSEGV``.
    mark : int
        The step at which it was; -1 before the first.
    """

    kind: Literal["crash", "timeout"]
    detail: str
    mark: int = -1


@dataclass(frozen=True, eq=False)
class TensorSeen:
    """A dense tensor as it was read.

    Attributes
    ----------
    values : ndarray
        In the tensor's dtype, contiguous.
    dtype : str
        Torch's name without its prefix.
    apart : str
        The device that it is on where that is not the table's; else empty.
    """

    values: Array
    dtype: str
    apart: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.values.shape


@dataclass(frozen=True, eq=False)
class GradientSeen:
    """A gradient as it was read.

    Attributes
    ----------
    layout : str
        ``strided``, ``sparse_coo`` or another of torch's names.
    shape : tuple of int
    dtype : str
    dense : ndarray or None
        The values, where the layout is strided.
    rows, entries : ndarray or None
        Where the layout is sparse_coo: the row of each entry, shape (nnz,), and its values,
        shape (nnz, d), as stored.
    sparse_dim : int
    coalesced : bool
        Whether a sparse_coo gradient says that no row has two entries and that they are in order.
    """

    layout: str
    shape: tuple[int, ...]
    dtype: str
    dense: Array | None = None
    rows: NDArray[np.int64] | None = None
    entries: Array | None = None
    sparse_dim: int = 0
    coalesced: bool = False


@dataclass(frozen=True, eq=False)
class MemorySeen:
    """The table and an index tensor after a step.

    Attributes
    ----------
    weight : ndarray
        The table as it reads.
    outside_weight : bool
        Whether the memory around the table kept its bits.
    indices : dict of int to ndarray
        The index tensor of each call made so far, as it reads.
    outside_indices : bool
        Whether the memory around the index tensors kept its bits.
    """

    weight: Array
    outside_weight: bool
    indices: dict[int, Array]
    outside_indices: bool


@dataclass(frozen=True, eq=False)
class StepSeen:
    """What a step did.

    Attributes
    ----------
    raised : Raised or None
    memory : MemorySeen
    output : TensorSeen or None
        After a call that returned a tensor.
    returned : str
        What a call returned instead, by type; empty for a tensor.
    requires_grad : bool
        Of the output.
    shares : tuple of str
        What the output shares memory with: ``weight``, ``indices``, ``output of step k``.
    gradient : GradientSeen or None
        Of the table, after the step; of the upstream gradient after a double backward.
    upstream_kept, outside_upstream : tuple of bool
        Whether each upstream gradient of a backward pass kept its bits, and the memory around it.
    lost : Lost or None
        Where the target's process ended in this step; `memory` is then that before it.
    ruined : bool
        Whether the device lost its context in this step or before, so that nothing can be read
        from it any more; `memory` is then that before it.
    """

    raised: Raised | None
    memory: MemorySeen
    output: TensorSeen | None = None
    returned: str = ""
    requires_grad: bool = False
    shares: tuple[str, ...] = ()
    gradient: GradientSeen | None = None
    upstream_kept: tuple[bool, ...] = ()
    outside_upstream: tuple[bool, ...] = ()
    lost: Lost | None = None
    ruined: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """Everything observable of a case.

    Attributes
    ----------
    steps : tuple of StepSeen
        One for each step that was taken; a step whose call raised unexpectedly is the last.
    final_outputs : dict of int to ndarray
        Every output as it reads after the last step, by step; none where the device was lost.
    """

    steps: tuple[StepSeen, ...]
    final_outputs: dict[int, Array] = field(default_factory=dict)

    @property
    def ruined(self) -> bool:
        """Whether the device was lost, and with it the process that uses it."""
        return any(step.ruined for step in self.steps)
