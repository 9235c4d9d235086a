"""What a backend can do, in a few words, derived from its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

from embconform.conformance.report import Status
from embconform.reference.clause import registry

_NEED_GRADIENT: Final = frozenset({"double_backward", "scale_grad_by_freq", "sparse"})
_WORDS: Final = {
    "padding_idx": "no padding_idx",
    "max_norm": "no max_norm",
    "norm_type": "no norm_type",
    "scale_grad_by_freq": "no scale_grad_by_freq",
    "sparse": "no sparse gradient",
    "double_backward": "no double backward",
    "strided": "contiguous only",
    "deterministic": "gradient not deterministic",
    "huge_tables": "tables under 2\N{SUPERSCRIPT THREE}\N{SUPERSCRIPT ONE} elements",
    "int32": "int64 indices only",
    "functional": "no function form",
    "module": "no module form",
}


@cache
def capabilities() -> frozenset[str]:
    """Everything that some clause needs."""
    return frozenset().union(*(clause.needs for clause in registry().values()))


def missing(able: Iterable[str]) -> frozenset[str]:
    """Say what a backend lacks that declares what it can do.

    Parameters
    ----------
    able : iterable of str
        Names as clauses need them.

    Returns
    -------
    frozenset of str
    """
    return capabilities() - set(able)


def inferred(statuses: Mapping[str, Status]) -> frozenset[str]:
    """Say what a backend lacks in effect: what it doesn't declare, or refuses wherever it is asked.

    A clause that was judged proves that all of its needs are there. One that is unsupported
    proves the lack of a need only where all its other needs are there.

    Parameters
    ----------
    statuses : mapping of str to Status
        By clause id.

    Returns
    -------
    frozenset of str
        What is lacking for certain.
    """
    needs = {clause: registry()[clause].needs for clause in statuses if clause in registry()}
    unjudged = {Status.UNSUPPORTED, Status.UNTESTED}
    known = frozenset().union(*(n for c, n in needs.items() if statuses[c] not in unjudged))
    unmet = [n - known for c, n in needs.items() if statuses[c] is Status.UNSUPPORTED]
    return frozenset().union(*(left for left in unmet if len(left) == 1))


def words(lacking: frozenset[str]) -> list[str]:
    """Word what a backend can and can't do.

    Parameters
    ----------
    lacking : frozenset of str
        Capabilities.

    Returns
    -------
    list of str
        Such as ``forward only``, ``float32 and float64``, ``no max_norm``.
    """
    if not lacking:
        return ["everything"]
    found = ["forward only"] if "gradient" in lacking else []
    found += _dtypes(lacking)
    moot = _NEED_GRADIENT | {"deterministic"} if "gradient" in lacking else frozenset()
    if "max_norm" in lacking:
        moot |= {"norm_type"}
    return found + [text for name, text in _WORDS.items() if name in lacking - moot]


def _dtypes(lacking: frozenset[str]) -> list[str]:
    """Name the table dtypes, where not all are there."""
    if {"float64", "half"} <= lacking:
        return ["float32 only"]
    if "half" in lacking:
        return ["float32 and float64"]
    return ["no float64"] if "float64" in lacking else []
