"""What a target did, and how it is to be judged: plain data that crosses to the judges' process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embconform.backends.backend import Described
from embconform.conformance.finding import Finding, equal, same_bits, within
from embconform.conformance.judging import Ruling
from embconform.conformance.outcome import Raised
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array


class Claim(ABC):
    """Something that was seen, with the input data that tell what is right.

    A claim is made beside the target and pickled; it holds no expected value but inputs, what the
    constructor was given, and what the target itself did before. What is right is computed by
    :meth:`judge`, in the judges' process.
    """

    @abstractmethod
    def judge(self) -> Finding | None:
        """Compare what was seen with what is right; None where it holds."""


@dataclass(frozen=True)
class Record:
    """One trial of a clause.

    Attributes
    ----------
    clause : str
    claims : tuple of Claim
        In the order in which they were made.
    raised : Raised or None
        The exception that ended the trial, after the last claim.
    seconds : float
        How long the trial took.
    ruined : bool
        Whether the device was lost in it, and with it the process.
    """

    clause: str
    claims: tuple[Claim, ...]
    raised: Raised | None
    seconds: float
    ruined: bool = False

    def rule(self, *, may_refuse: bool) -> Ruling:
        """Rule by the first claim that does not hold, else by the exception."""
        findings = (claim.judge() for claim in self.claims)
        finding = next((found for found in findings if found is not None), None)
        if finding is None and self.raised is not None:
            said = str(self.raised)
            finding = Finding(f"raised {said}", said, "no exception", refused=may_refuse)
        return Ruling(self.clause, finding, self.seconds)


@dataclass(frozen=True)
class Unfinished:
    """What a probe saw up to a trial in which the device was lost; there are more trials.

    Attributes
    ----------
    records : tuple of Record
    """

    records: tuple[Record, ...]


def judge_records(
    records: Iterable[Record], described: Described, profile: Profile, seed: int
) -> list[Ruling]:
    """Rule on trials that must work: an exception breaks the clause."""
    del described, profile, seed
    return [record.rule(may_refuse=False) for record in records]


def judge_refusable(
    records: Iterable[Record], described: Described, profile: Profile, seed: int
) -> list[Ruling]:
    """Rule on trials that a target may refuse: an exception keeps the clause."""
    del described, profile, seed
    return [record.rule(may_refuse=True) for record in records]


# What was seen


@dataclass(frozen=True, eq=False)
class Returned:
    """An object that a target gave where a dense tensor is due.

    Attributes
    ----------
    kind : str
        Its type.
    dtype : str
        Torch's name without its prefix; empty where it is no tensor.
    shape : tuple of int
    values : ndarray or None
        None where it is no tensor, or can't be read.
    raised : Raised or None
        Why a tensor can't be read.
    """

    kind: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    values: Array | None = None
    raised: Raised | None = None


@dataclass(frozen=True, eq=False)
class Odd:
    """A value that is not plain, such as a tensor where a number is due; equal to nothing."""

    text: str

    def __str__(self) -> str:
        return self.text


# Comparisons


def _same_kind(
    what: str, got: tuple[str, tuple[int, ...]], wanted: tuple[str, tuple[int, ...]]
) -> Finding | None:
    """Compare dtypes and shapes."""
    found = equal("dtype", got[0], wanted[0], f"the dtype of {what}")
    found = found or equal("shape", got[1], wanted[1], f"the shape of {what}")
    return found and replace(found, check=None)


def _values(
    what: str, got: Array, exact: Array, bound: NDArray[np.float64] | None = None
) -> Finding | None:
    """Compare arrays of one shape: bits, or values within a bound."""
    if bound is None:
        found = same_bits("", got, exact)
    else:
        found = within("", got, exact, bound, np.ones(exact.shape, np.bool_))
    return found and replace(found, message=f"{what} at {found.message}", check=None)


def compare_arrays(
    what: str, got: Array, wanted: Array, bound: NDArray[np.float64] | None = None
) -> Finding | None:
    """Compare dtype, shape, and bits or values within a bound, of two arrays.

    Parameters
    ----------
    what : str
        Names `got` in messages.
    got, wanted : ndarray
    bound : ndarray of float64, optional
        How far values may be from `wanted`; None for equal bits.

    Returns
    -------
    Finding or None
        The first difference.
    """
    kinds = ((array.dtype.name, array.shape) for array in (got, wanted))
    return _same_kind(what, *kinds) or _values(what, got, wanted, bound)


def compare(
    what: str,
    got: Returned,
    exact: Array,
    bound: NDArray[np.float64] | None = None,
    dtype: str = "float32",
) -> Finding | None:
    """Compare what was returned with an array: dtype, shape, and bits or values within a bound.

    Parameters
    ----------
    what : str
        Names the tensor and the call in messages.
    got : Returned
    exact : ndarray
    bound : ndarray of float64, optional
        How far values may be from `exact`; None for equal bits.
    dtype : str, optional
        What they must have under a bound; for equal bits it is that of `exact`.

    Returns
    -------
    Finding or None
        A refusal where a tensor of the right dtype and shape can't be read.
    """
    if not got.dtype:
        return Finding(f"{what} is of type {got.kind}, must be a tensor", got.kind, "a tensor")
    wanted = exact.dtype.name if bound is None else dtype
    found = _same_kind(what, (got.dtype, got.shape), (wanted, exact.shape))
    if found:
        return found
    if got.values is None:
        said = str(got.raised)
        return Finding(f"{what} can't be read: {said}", said, "no exception", refused=True)
    return _values(what, got.values, exact, bound)


# Claims of every family


@dataclass(frozen=True, eq=False)
class Must(Claim):
    """A fact that can only be seen beside the target, such as that two names are one object."""

    holds: bool
    otherwise: str
    got: str = ""
    exact: str = ""

    def judge(self) -> Finding | None:
        """Give the message where it does not hold."""
        return None if self.holds else Finding(self.otherwise, self.got, self.exact)


@dataclass(frozen=True, eq=False)
class Equal(Claim):
    """A plain value that must be another."""

    name: str
    got: Any
    exact: Any

    def judge(self) -> Finding | None:
        """Compare with ==."""
        found = equal(self.name, self.got, self.exact)
        return found and replace(found, check=None)


@dataclass(frozen=True, eq=False)
class SameBits(Claim):
    """An array that must be one that was given, or that the target gave before, bit for bit."""

    what: str
    got: Array
    wanted: Array

    def judge(self) -> Finding | None:
        """Compare dtype, shape and bits."""
        return compare_arrays(self.what, self.got, self.wanted)


@dataclass(frozen=True, eq=False)
class SameValues(Claim):
    """Arrays of equal values, of whatever dtype."""

    got: Array
    wanted: Array
    otherwise: str

    def judge(self) -> Finding | None:
        """Compare shape and values."""
        return None if np.array_equal(self.got, self.wanted) else Finding(self.otherwise)


@dataclass(frozen=True, eq=False)
class Different(Claim):
    """Arrays that must not be equal."""

    one: Array
    other: Array
    otherwise: str

    def judge(self) -> Finding | None:
        """Compare shape and values."""
        return Finding(self.otherwise) if np.array_equal(self.one, self.other) else None


@dataclass(frozen=True, eq=False)
class MustRaise(Claim):
    """A call that must raise; `gave` is what it gave instead, None where it raised."""

    what: str
    gave: str | None

    def judge(self) -> Finding | None:
        """Demand an exception."""
        if self.gave is None:
            return None
        return Finding(f"{self.what} gave {self.gave}, must raise", self.gave, "an exception")


@dataclass(frozen=True, eq=False)
class Refused(Claim):
    """A target does not offer what a clause speaks of: the clause is ``unsupported``."""

    reason: str

    def judge(self) -> Finding | None:
        """Refuse."""
        return Finding(self.reason, got=self.reason, refused=True)
