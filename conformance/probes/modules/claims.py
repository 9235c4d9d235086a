"""Claims of what modules do, and what is right for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from embconform.conformance.finding import Finding
from embconform.conformance.probes.claims import Claim, compare_arrays
from embconform.reference.bounds import relative
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array, format_of

Behaviour = dict[str, Any]
"""All that can be seen of a pass, by name: arrays, and plain values to be compared with ==."""


@dataclass(frozen=True, eq=False)
class SameBehaviour(Claim):
    """A pass that must be as another of the same target, to the bit where no sum rounds.

    Attributes
    ----------
    which : str
        What `got` is of, for the message.
    got, wanted : dict
    divided : int
        How many terms, none of them negative, are divided by their count in a sum of the gradient,
        which rounds then, in an order that need not be repeated; 0 where sums are exact.
    """

    which: str
    got: Behaviour
    wanted: Behaviour
    divided: int = 0

    def judge(self) -> Finding | None:
        """Find the first thing that differs."""
        for name in dict.fromkeys((*self.wanted, *self.got)):
            got, wanted = self.got.get(name, "none"), self.wanted.get(name, "none")
            what = f"{name} of {self.which}"
            if isinstance(got, np.ndarray) and isinstance(wanted, np.ndarray):
                slack = self._slack(wanted) if self.divided and name == "the gradient" else None
                finding = compare_arrays(what, got, wanted, slack)
            elif type(got) is type(wanted) and got == wanted:
                finding = None
            else:
                seen, right = _brief(got), _brief(wanted)
                finding = Finding(f"{what} is {seen}, must be {right}", seen, right)
            if finding:
                return finding
        return None

    def _slack(self, wanted: Array) -> NDArray[np.float64]:
        """Allow the roundings of both sums: neither is exact, but both are near what is."""
        unit_roundoff = format_of(wanted.dtype.name).unit_roundoff
        slack = relative(2 * (self.divided + 3), unit_roundoff)
        return np.asarray(slack * np.abs(wanted.astype(np.float64)))


def _brief(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else str(value)


@dataclass(frozen=True, eq=False)
class CastOf(Claim):
    """An array that must be another one cast to a dtype.

    Attributes
    ----------
    what : str
    got, given : ndarray
    dtype : str
        NumPy's name.
    ids : ndarray of integers, optional
        The rows of `given` that `got` looked up.
    """

    what: str
    got: Array
    given: Array
    dtype: str
    ids: Array | None = None

    def judge(self) -> Finding | None:
        """Round to nearest, ties to even, by NumPy, and compare the bits."""
        name = self.dtype
        exact = self.given.astype(getattr(ml_dtypes, name) if name == "bfloat16" else name)
        return compare_arrays(self.what, self.got, exact if self.ids is None else exact[self.ids])


@dataclass(frozen=True, eq=False)
class PaddingRow(Claim):
    """Row padding_idx of a table that was drawn.

    Attributes
    ----------
    what : str
        Names the table.
    table : ndarray
    shape : tuple of int
        As the constructor was told.
    padding : int
    profile : Profile
    """

    what: str
    table: Array
    shape: tuple[int, int]
    padding: int
    profile: Profile

    def judge(self) -> Finding | None:
        """Demand zeros in torch's profile, a draw in the textbook's, and a draw of all others."""
        if self.table.shape != self.shape:
            seen = self.table.shape
            return Finding(f"{self.what} has shape {seen}, must have {self.shape}", str(seen))
        wants_zeros = self.profile is Profile.TORCH
        zeros = (self.table == 0).all(axis=1)
        if zeros[self.padding] != wants_zeros:
            right = "zeros" if wants_zeros else "drawn like the others"
            return Finding(
                f"row padding_idx={self.padding} of {self.what} must be {right}, and is not"
            )
        zeros[self.padding] = False
        if not zeros.any():
            return None
        row = int(np.argmax(zeros))
        return Finding(f"with padding_idx={self.padding}, row {row} of {self.what} is zero as well")


@dataclass(frozen=True, eq=False)
class Shows(Claim):
    """The repr of a module, which must name a size."""

    call: str
    text: str
    what: str
    size: int

    def judge(self) -> Finding | None:
        """Look for the number."""
        if str(self.size) in re.findall(r"\d+", self.text):
            return None
        brief = " ".join(self.text.split())[:80]
        message = f"repr of {self.call} is {brief!r} and does not name {self.what}"
        return Finding(message, brief, str(self.size))
