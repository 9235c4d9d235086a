"""Whether a contender's answer is right; one that is wrong is not ranked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from embconform.performance.cuda_targets.inputs import Inputs
from embconform.reference.dtypes import format_of

COLUMNS: Final = 48
"""Columns of a gradient that are summed again in float64."""
_FLOAT32: Final = 2.0**-24
_CARRIERS: Final = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class Checked:
    """What is wrong with a result, in one line each; empty where nothing is.

    Attributes
    ----------
    wrong : str
    coarse : str
        Where only sums in a dtype as narrow as the table's explain it.
    """

    wrong: str = ""
    coarse: str = ""


def expected_shape(inputs: Inputs) -> tuple[int, int]:
    """Give the shape of a result."""
    row = inputs.row
    return (row.rows if row.group in ("backward", "equal") else row.count, row.width)


def check(inputs: Inputs, turn: int, output: torch.Tensor) -> Checked:
    """Compare a result with what it must be.

    Parameters
    ----------
    inputs : Inputs
        Under max_norm, as the call left them.
    turn : int
        Which of the indices the call had.
    output : Tensor

    Returns
    -------
    Checked
    """
    row, shape = inputs.row, expected_shape(inputs)
    if tuple(output.shape) != shape or str(output.dtype) != f"torch.{row.dtype}":
        return Checked(f"gave {tuple(output.shape)} of {output.dtype}")
    match row.group:
        case "backward" | "equal":
            return _gradient(inputs, turn, output)
        case "max_norm":
            return Checked(_bounded(inputs, turn, output))
        case _:
            rows = inputs.weight.index_select(0, inputs.indices[turn])
            carrier = _CARRIERS[output.element_size()]
            wrong = int((output.view(carrier) != rows.view(carrier)).sum())
            return Checked(f"{wrong} elements are not their rows'" if wrong else "")


def _gradient(inputs: Inputs, turn: int, output: torch.Tensor) -> Checked:
    """Sum some columns in float64, and bound what float32 sums in any order may be off by.

    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §4.2.
    """
    row, ids = inputs.row, inputs.indices[turn]
    chosen = torch.randperm(row.width, device=ids.device)[:COLUMNS]
    upstream = inputs.upstream[:, chosen].double()
    sums = upstream.new_zeros(row.rows, len(chosen)).index_add_(0, ids, upstream)
    sizes = torch.zeros_like(sums).index_add_(0, ids, upstream.abs_())
    terms = torch.bincount(ids, minlength=row.rows).double()[:, None]
    unit = format_of(row.dtype).unit_roundoff
    rounded = 2 * unit * sums.abs()
    off = (output[:, chosen].double() - sums).abs_()
    wrong = int((~(off <= _gamma(terms, unit) * sizes + rounded)).sum())
    if wrong:
        return Checked(f"{wrong} elements of {len(chosen)} columns are not their sums")
    coarse = int((~(off <= _gamma(terms, _FLOAT32) * sizes + rounded)).sum())
    said = f"{coarse} elements are further off than float32 sums may be"
    return Checked(coarse=said if coarse else "")


def _gamma(terms: torch.Tensor, unit: float) -> torch.Tensor:
    """Bound the relative error of as many roundings; infinite where there is no bound."""
    off = terms * unit
    return torch.where(off < 1, off / (1 - off), torch.inf)


def _bounded(inputs: Inputs, turn: int, output: torch.Tensor) -> str:
    """Compare outputs and table with scaled rows, where rounding leaves no doubt who is scaled."""
    row, (named, before) = inputs.row, inputs.saved[turn]
    unit, bound = format_of(row.dtype).unit_roundoff, inputs.max_norm
    exact = before.double()
    norms = torch.linalg.vector_norm(exact, dim=1, keepdim=True)
    slack = (row.width + 4) * _FLOAT32
    exact = torch.where(norms > bound, exact * (bound / (norms + 1e-7)), exact)
    clear = (norms - bound).abs() > slack * norms
    allowed = (4 * unit + slack) * exact.abs() + torch.finfo(output.dtype).tiny
    table = (inputs.weight[named].double() - exact).abs()
    wrong = int((clear & ~(table <= allowed)).sum())
    if wrong:
        return f"{wrong} elements of the table are not scaled as they must be"
    places = torch.searchsorted(named, inputs.indices[turn])
    looked = output != inputs.weight[named][places]
    return f"{int(looked.sum())} elements are not their rows'" if looked.any() else ""
