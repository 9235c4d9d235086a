"""Run the right embeddings: those that the bugs are made of, and those that share no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from time import perf_counter
from typing import Any

from embconform.backends.adapt import as_backend
from embconform.backends.textbook import BACKEND as TEXTBOOK
from embconform.conformance.options import RunOptions
from embconform.conformance.report import BROKEN, Report, Status
from embconform.conformance.running.engine import Spread, run
from embconform.mutants.kernel import Kernel
from embconform.mutants.module import Layer
from embconform.mutants.transforms_parts import Parts
from embconform.right import RIGHT

BASES: Mapping[str, tuple[str, ...]] = {
    "torch": ("Kernel", "Layer"),
    "textbook": ("textbook",),
}
"""The right embeddings that the planted bugs of a profile are made of."""


@cache
def right() -> dict[str, Any]:
    """List the right embeddings by name."""
    bases = {"Kernel": Kernel(), "Layer": Layer, "Parts": Parts(), "textbook": TEXTBOOK}
    return bases | {target.__name__: target for target in RIGHT}


@dataclass(frozen=True)
class Acceptance:
    """What became of a right embedding.

    Attributes
    ----------
    name, profile : str
    seed : int
    budget : str
    refused : dict of str to str
        Clauses that count against it, with what was said; those that nothing tested among them.
    warned : tuple of str
        SHOULD clauses that it breaks.
    cases : int
    seconds : float
    """

    name: str
    profile: str
    seed: int
    budget: str
    refused: dict[str, str]
    warned: tuple[str, ...]
    cases: int
    seconds: float

    @property
    def accepted(self) -> bool:
        """Whether nothing counts against it."""
        return not self.refused

    def as_dict(self) -> dict[str, Any]:
        """Give plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Acceptance:
        """Read what :meth:`as_dict` gave."""
        return cls(**data | {"warned": tuple(data["warned"])})


def accept(
    name: str,
    *,
    seed: int = 0,
    budget: str = "quick",
    select: str = "*",
    shard: int = 1,
    of: int = 1,
) -> Acceptance:
    """Run a right embedding to the end.

    Parameters
    ----------
    name : str
        A key of :func:`right`.
    seed : int
    budget : str
    select : str
        Patterns of clause ids.
    shard, of : int
        Do every `of`-th unit of the work only, beginning with number `shard`, from 1.
    """
    started = perf_counter()
    backend = as_backend(name, right()[name])
    options = RunOptions(backend.profiles[0], budget, seed=seed, select=select)
    report = run(backend, options, target=name, spread=Spread(shard=shard, of=of))
    return Acceptance(
        name=name,
        profile=report.profile.value,
        seed=seed,
        budget=budget,
        refused=refusals(report, whole=of == 1),
        warned=tuple(
            result.clause.id
            for result in report.with_status(*BROKEN)
            if not report.counts_against(result)
        ),
        cases=report.cases,
        seconds=round(perf_counter() - started, 3),
    )


def refusals(report: Report, *, whole: bool = True) -> dict[str, str]:
    """Find what must not be in the report of a right embedding.

    Parameters
    ----------
    report : Report
    whole : bool
        Whether it is of a whole run, which leaves no clause untested.

    Returns
    -------
    dict of str to str
        Clauses that count against it or that nothing tested, and why.
    """
    return {
        result.clause.id: result.detail
        for result in report.clauses
        if report.counts_against(result)
        or (whole and result.status is Status.UNTESTED and not result.left_out)
    }
