"""How far results lie from the exact ones, and how far they may: of gradient sums and of renorms.

The cases are made here; what is exact, what is allowed and what breaks a clause, the oracle and the
judges say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embconform.backends.backend import Description
from embconform.conformance.cases.case import Backward, Call, Case, Placed
from embconform.conformance.judging import rule
from embconform.conformance.outcome import Outcome
from embconform.conformance.running.runner import Runner
from embconform.conformance.views import BackwardView, CallView, views
from embconform.reference.clause import Level, registry
from embconform.reference.dtypes import Array, format_of, in_float64, ulp
from embconform.reference.oracle import Options, p_norm

DTYPES: Final = ("float64", "float32", "float16", "bfloat16")
MOST: Final = 16_384
"""Duplicates: their sum, at most 1 each, is still far below the largest float16."""
NORMS: Final = (1.0, 2.0, 3.0, float("inf"))
WIDTH: Final = 256
_ROWS: Final = 64
_COLUMNS: Final = 8
HALVES: Final = ("float16", "bfloat16")


@dataclass(frozen=True)
class Sample:
    """An error, and what is allowed.

    Attributes
    ----------
    target, dtype : str
    at : float
        How many indices name the row, or p.
    error : float or None
        In units in the last place of the exact result in `dtype`; None where there is no result.
    bound : float
        Allowed by a MUST clause: accumulated in the table's own dtype. In ulp, like `error`.
    bound_float32 : float
        Allowed by a SHOULD clause, for tables of 16 bits: accumulated in float32 or better and
        rounded once.
    broken : tuple of str
        The clauses that the judges find broken.
    exact : float
        The exact result where the error is largest.
    why : str
        Why there is no result.
    """

    target: str
    dtype: str
    at: float
    error: float | None = None
    bound: float = 0.0
    bound_float32: float = 0.0
    broken: tuple[str, ...] = ()
    exact: float = 0.0
    why: str = ""

    @property
    def grave(self) -> bool:
        """Whether a MUST clause is broken."""
        return any(registry()[clause].level is Level.MUST for clause in self.broken)


@dataclass(frozen=True)
class Accuracy:
    """What was measured of some targets.

    Attributes
    ----------
    sums : tuple of Sample
        Gradient rows, by the number of duplicates.
    norms : tuple of Sample
        Norms of rows after a renorm to 1, by p.
    seed : int
    """

    sums: tuple[Sample, ...]
    norms: tuple[Sample, ...]
    seed: int


def counts(most: int = MOST) -> list[int]:
    """List numbers of duplicates: the powers of two up to `most`."""
    return [2**k for k in range(most.bit_length()) if 2**k <= most]


def measure(runner: Runner, target: str, *, most: int, seed: int) -> Accuracy:
    """Put a target through the cases.

    Parameters
    ----------
    runner : Runner
    target : str
        What to call it.
    most : int
        Duplicates, at most :data:`MOST`.
    seed : int
        Draws the terms and the rows.

    Returns
    -------
    Accuracy
    """
    sums = _series(runner, target, counts(most), partial(_summing, seed), _sum)
    norms = _series(runner, target, NORMS, partial(_bounding, seed), _norm)
    return Accuracy(tuple(sums), tuple(norms), seed)


def joined(parts: Sequence[Accuracy]) -> Accuracy:
    """Set what was measured of several targets side by side."""
    return Accuracy(
        tuple(sample for part in parts for sample in part.sums),
        tuple(sample for part in parts for sample in part.norms),
        parts[0].seed,
    )


def _series(
    runner: Runner,
    target: str,
    places: Sequence[float],
    make: Callable[[Description, str, Any], Case],
    read: Callable[[Case, Outcome], Sample],
) -> Iterator[Sample]:
    able = runner.description.able
    for dtype in DTYPES:
        needs = {"half"} if dtype in HALVES else {"float64"} & {dtype}
        for at in places:
            case = make(runner.description, dtype, at)
            needed = needs | ({"gradient"} if read is _sum else {"max_norm"})
            needed |= {"norm_type"} if case.options.norm_type != 2 else set()
            if lacking := needed - able:
                why = f"does not declare {', '.join(sorted(lacking))}"
                yield Sample(target, dtype, at, why=why)
                continue
            outcome = runner.observe(case, parallel=False)
            sample = read(case, outcome)
            yield Sample(**{**vars(sample), "target": target, "dtype": dtype, "at": at})


def _summing(seed: int, backend: Description, dtype: str, count: int) -> Case:
    """Name one row `count` times, with terms of 1/2 to 1, the same ones in every column."""
    drawn = np.random.default_rng([seed, count]).uniform(0.5, 1.0, (count, 1))
    terms = np.broadcast_to(drawn, (count, _COLUMNS)).astype(format_of(dtype).dtype)
    table = np.zeros((1, _COLUMNS), format_of(dtype).dtype)
    steps = (Call(Placed(np.zeros(count, np.int64))), Backward((0,), (Placed(terms),)))
    return _case(backend, table, Options(), steps)


def _bounding(seed: int, backend: Description, dtype: str, p: float) -> Case:
    """Look up rows of normal numbers once each, under a bound of 1 on their p-norm."""
    drawn = np.random.default_rng([seed, WIDTH]).standard_normal((_ROWS, WIDTH))
    table = drawn.astype(format_of(dtype).dtype)
    options = Options(max_norm=1.0, norm_type=p)
    return _case(backend, table, options, (Call(Placed(np.arange(_ROWS))),))


def _case(backend: Description, table: Array, options: Options, steps: tuple[Any, ...]) -> Case:
    return Case(
        stratum="accuracy",
        profile=backend.profiles[0],
        weight=Placed(table),
        options=options,
        mode="grad",
        entry="functional" if "functional" in backend.able else "module",
        steps=steps,
    )


def _sum(case: Case, outcome: Outcome) -> Sample:
    """Read the gradient's row as its judges do."""
    for view in views(case, outcome):
        if isinstance(view, BackwardView) and view.readable and view.dense is not None:
            exact = view.exact
            limits = _Limits(exact.values, exact.bound, exact.bound_float32)
            return _worst(case, outcome, "gradient.", view.dense, limits)
    return Sample("", "", 0, why=_why(outcome))


def _norm(case: Case, outcome: Outcome) -> Sample:
    """Read the rows' norms; an error in norm is at most the norm of the errors."""
    for view in views(case, outcome):
        if isinstance(view, CallView) and view.readable and view.seen.raised is None:
            limit, p = view.limit, view.options.norm_type
            rows = (limit.values, limit.bound, limit.bound_float32)
            limits = _Limits(*(p_norm(each, p)[0] for each in rows))
            got, _ = p_norm(in_float64(view.output), p)
            return _worst(case, outcome, "max-norm.", got, limits)
    return Sample("", "", 0, why=_why(outcome))


@dataclass(frozen=True)
class _Limits:
    """Exact results, and how far from them one may be."""

    values: NDArray[np.float64]
    bound: NDArray[np.float64]
    bound_float32: NDArray[np.float64]


def _worst(
    case: Case, outcome: Outcome, group: str, got: NDArray[np.float64], limits: _Limits
) -> Sample:
    """Take the element whose error is largest, in ulp."""
    error = np.abs(got - limits.values)
    error = np.where(np.isnan(error), np.inf, error)
    at = np.unravel_index(int(np.argmax(error)), error.shape)
    unit = ulp(float(limits.values[at]), case.dtype)
    broken = {ruling.clause for ruling in rule(case, outcome) if ruling.finding is not None}
    return Sample(
        "", "", 0,
        error=float(error[at]) / unit,
        bound=float(limits.bound[at]) / unit,
        bound_float32=float(limits.bound_float32[at]) / unit,
        broken=tuple(sorted(clause for clause in broken if clause.startswith(group))),
        exact=float(limits.values[at]),
    )  # fmt: skip


def _why(outcome: Outcome) -> str:
    """Say why there is nothing to read."""
    last = outcome.steps[-1]
    if last.lost is not None:
        return last.lost.detail
    return str(last.raised) if last.raised is not None else "gives no such tensor"
