"""What the gate measures where the user names nothing: few calls, short, unlike each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from embconform.performance.passes import PASSES, Pass
from embconform.performance.workloads import Workload, find

MOST: Final = 10
_DEFAULT: Final = (
    ("gpt2-token-zipf-float32", "forward"),
    ("movielens-items-batch-zipf-float32", "forward"),
    ("bert-batch-zipf-float32", "forward"),
    ("bert-batch-zipf-bfloat16", "forward"),
    ("gpt2-token-zipf-float32", "sparse"),
    ("movielens-items-batch-zipf-float32", "backward"),
)
"""Calls of some 4 µs to 1 ms: one bound by dispatch, some by the caches, some by memory."""


@dataclass(frozen=True)
class Benchmark:
    """A pass over a workload."""

    workload: Workload
    chosen: Pass

    @property
    def name(self) -> str:
        """Workload and pass."""
        return f"{self.workload.name} {self.chosen.name}"

    @property
    def moved(self) -> int:
        """Bytes that a call writes at least: the rows, or a dense gradient."""
        dense = self.chosen.gradient and "sparse" not in self.chosen.options
        rows = self.workload.rows if dense else self.workload.count
        return rows * self.workload.width * self.workload.item


def default() -> list[Benchmark]:
    """List the benchmarks of the gate."""
    return [Benchmark(find(name)[0], PASSES[chosen]) for name, chosen in _DEFAULT]


def choose(pattern: str, passes: tuple[str, ...]) -> list[Benchmark]:
    """List the benchmarks that a user asks for.

    Parameters
    ----------
    pattern : str
        Of workloads, as :func:`embconform.performance.workloads.find` takes it.
    passes : tuple of str

    Returns
    -------
    list of Benchmark
        Empty where nothing matches; perhaps more than :data:`MOST`.
    """
    return [Benchmark(workload, PASSES[name]) for workload in find(pattern) for name in passes]
