"""What a judge found wrong, with enough to print it and to reproduce it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embconform.reference.dtypes import Array, bits, ulp


@dataclass(frozen=True)
class Check:
    """How a repro script decides, in terms of an expression of the script.

    Attributes
    ----------
    expression : str
        Python expression for what was seen, such as ``out0`` or ``weight.grad``.
    relation : str
        ``bits`` (equal bit patterns), ``within`` (|got - exact| <= bound), ``equal`` (==) or
        ``raises`` (the step must raise) or ``works`` (the step must not).
    exact : ndarray or object
        Expected values.
    bound : ndarray or None
        Allowed absolute error.
    where : ndarray of bool or None
        The elements that count; None for all.
    may_raise : bool
        An exception keeps the clause.
    """

    expression: str
    relation: str
    exact: Any = None
    bound: NDArray[np.float64] | None = None
    where: NDArray[np.bool_] | None = None
    may_raise: bool = False


@dataclass(frozen=True)
class Finding:
    """A clause broken by a case.

    Attributes
    ----------
    message : str
        One line: where, what was seen and what should have been.
    got, exact, bound : str
    ulp : float or None
        Error in units in the last place of the dtype at hand; None where the exact value is 0.
    step : int
        The step at which it shows.
    check : Check or None
    refused : bool
        The embedding refused with an exception something that it may refuse.
    lost : str
        ``crash`` or ``timeout`` where the target's process did not survive; else empty.
    """

    message: str
    got: str = ""
    exact: str = ""
    bound: str = ""
    ulp: float | None = None
    step: int = 0
    check: Check | None = None
    refused: bool = False
    lost: str = ""


def _place(position: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, position))}]"


def _number(value: Any) -> str:
    if np.iscomplexobj(value):
        return str(value)
    number = float(value)
    return f"{number!r}" if number == 0 or 1e-4 <= abs(number) < 1e6 else f"{number:.9g}"


def same_bits(
    name: str, got: Array, exact: Array, where: NDArray[np.bool_] | None = None
) -> Finding | None:
    """Compare bit for bit.

    Parameters
    ----------
    name : str
        The expression for what was seen.
    got, exact : ndarray
        Of one shape and dtype.
    where : ndarray of bool, optional
        The leading axes' elements that count.

    Returns
    -------
    Finding or None
        The first difference.
    """
    different = bits(got) != bits(exact)
    if different.ndim > got.ndim:
        different = different.any(axis=-1)
    mask = None
    if where is not None:
        mask = np.broadcast_to(
            where.reshape(where.shape + (1,) * (got.ndim - where.ndim)), got.shape
        )
        different = different & mask
    if not different.any():
        return None
    position = tuple(int(k) for k in np.argwhere(different)[0])
    seen, right = got[position], exact[position]
    wrong = int(different.sum())
    detail = f"{wrong} of {different.size} elements differ" if different.size > 1 else "it differs"
    text_seen, text_right = _number_or_bits(seen, right)
    return Finding(
        f"{name}{_place(position)} is {text_seen}, must be {text_right} to the bit; {detail}",
        text_seen,
        text_right,
        "0 (equal bits)",
        None if np.iscomplexobj(seen) else _ulps(float(seen), float(right), got.dtype.name),
        check=Check(name, "bits", exact, where=mask),
    )


def _number_or_bits(seen: Any, right: Any) -> tuple[str, str]:
    plain = _number(seen), _number(right)
    if plain[0] != plain[1]:
        return plain
    digits = 2 * np.asarray(seen).itemsize
    patterns = tuple(
        f"0x{int(bits(np.asarray(v).reshape(1))[0]):0{digits}x}" for v in (seen, right)
    )
    return f"{plain[0]} ({patterns[0]})", f"{plain[1]} ({patterns[1]})"


def _ulps(seen: float, right: float, dtype: str) -> float | None:
    if right == 0 or not (np.isfinite(seen) and np.isfinite(right)):
        return None
    try:
        return abs(seen - right) / ulp(right, dtype)
    except (AttributeError, ValueError):
        return None


def within(
    name: str,
    got: Array,
    exact: NDArray[np.float64],
    bound: NDArray[np.float64],
    where: NDArray[np.bool_],
) -> Finding | None:
    """Compare within an absolute error bound, elementwise.

    Parameters
    ----------
    name : str
        The expression for what was seen.
    got : ndarray
    exact, bound : ndarray of float64
        Of the shape of `got`.
    where : ndarray of bool
        The elements that count.

    Returns
    -------
    Finding or None
        The element that exceeds its bound by most.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        seen = got.astype(np.float64)
        error = np.abs(seen - exact)
        wrong = where & ~(error <= bound)
    if not wrong.any():
        return None
    excess = np.where(wrong, np.where(np.isfinite(error), error - bound, np.inf), -1.0)
    position = tuple(int(k) for k in np.unravel_index(int(np.argmax(excess)), excess.shape))
    value, right, allowed = (float(a[position]) for a in (seen, exact, bound))
    ulps = _ulps(value, right, got.dtype.name)
    size = "" if ulps is None else f", {ulps:.3g} ulp off"
    return Finding(
        f"{name}{_place(position)} is {_number(value)}, must be {_number(right)} "
        f"± {allowed:.3g}{size}; {int(wrong.sum())} of {wrong.size} elements are wrong",
        _number(value),
        _number(right),
        f"{allowed:.3g}",
        ulps,
        check=Check(name, "within", exact, bound, where),
    )


def equal(name: str, got: Any, exact: Any, what: str = "") -> Finding | None:
    """Compare two plain values with ==.

    Parameters
    ----------
    name : str
        The expression for what was seen.
    got, exact : object
    what : str
        How to name it in the message; `name` where empty.

    Returns
    -------
    Finding or None
    """
    if got == exact:
        return None
    return Finding(
        f"{what or name} is {got}, must be {exact}",
        str(got),
        str(exact),
        check=Check(name, "equal", exact),
    )
