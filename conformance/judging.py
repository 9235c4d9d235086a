"""The judges by clause, and how a case is put before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import import_module
from time import perf_counter
from typing import Any, TypeVar

from embconform.conformance.cases.case import Case
from embconform.conformance.finding import Check, Finding
from embconform.conformance.outcome import Lost, Outcome
from embconform.conformance.views import CallView, DoubleBackwardView, FaultView, View, views
from embconform.reference.clause import Profile, registry

V = TypeVar("V", bound=View)
AFTER_AN_ERROR = "errors.next-call-works"
"""Of the steps after one in which the device was lost, this clause alone speaks."""
GROUPS = ("lookup", "padding", "max_norm", "gradient", "sparse", "errors", "state")


@dataclass(frozen=True)
class Judge:
    """Decides one clause on one kind of view.

    Attributes
    ----------
    clause : str
        Clause id.
    kind : type
        The view class that it judges.
    applies : callable
        Whether the clause says anything about a view.
    check : callable
        Returns a Finding where the clause is broken, None where it holds.
    value : bool
        Whether an exception where none is due breaks the clause; other judges skip such a step.
    may_refuse : bool
        Whether an exception keeps the clause.
    """

    clause: str
    kind: type[View]
    applies: Callable[[Any], bool]
    check: Callable[[Any], Finding | None]
    value: bool
    may_refuse: bool = False


_JUDGES: list[Judge] = []


def judge(
    clause: str,
    kind: type[V],
    applies: Callable[[V], bool],
    *,
    value: bool = False,
    may_refuse: bool = False,
) -> Callable[[Callable[[V], Finding | None]], Callable[[V], Finding | None]]:
    """Register a function as the judge of a clause on a kind of view.

    Parameters
    ----------
    clause : str
        An id of the registry.
    kind : type
        CallView, FaultView, BackwardView or DoubleBackwardView.
    applies : callable
    value, may_refuse : bool
        See :class:`Judge`.

    Returns
    -------
    callable
        A decorator that returns the function as it is, so that one can judge several clauses.

    Raises
    ------
    KeyError
        If there is no such clause.
    """
    if clause not in registry():
        raise KeyError(clause)

    def register(check: Callable[[V], Finding | None]) -> Callable[[V], Finding | None]:
        _JUDGES.append(Judge(clause, kind, applies, check, value, may_refuse))
        return check

    return register


@cache
def judges() -> dict[type[View], list[Judge]]:
    """List the judges by the kind of view that they look at."""
    for group in GROUPS:
        import_module(f"embconform.conformance.judges.{group}")
    by_kind: dict[type[View], list[Judge]] = {}
    for entry in _JUDGES:
        by_kind.setdefault(entry.kind, []).append(entry)
    return by_kind


@cache
def judged() -> frozenset[str]:
    """Name the clauses that cases are judged by; the others are ruled on by probes."""
    return frozenset(entry.clause for entries in judges().values() for entry in entries)


@dataclass(frozen=True)
class Ruling:
    """A clause that applied to a case, and what was found."""

    clause: str
    finding: Finding | None
    seconds: float = 0.0


def rule(case: Case, outcome: Outcome, wanted: frozenset[str] | None = None) -> Iterator[Ruling]:
    """Judge an outcome by every clause that applies.

    Parameters
    ----------
    case : Case
    outcome : Outcome
    wanted : frozenset of str, optional
        Only these clauses.

    Yields
    ------
    Ruling
        A clause can come more than once, for different steps.
    """
    panels = _panels(case.profile, wanted)
    for view in views(case, outcome):
        broke_off = _broke_off(view)
        for entry in panels[type(view)]:
            if view.after_loss and entry.clause != AFTER_AN_ERROR:
                continue
            if not (_speaks_of_loss(entry, view) if broke_off else _speaks(entry, view)):
                continue
            if not entry.applies(view):
                continue
            started = perf_counter()
            finding = _of_loss(entry, view) if broke_off else entry.check(view)
            if finding is not None:
                check = finding.check and replace(finding.check, may_raise=entry.may_refuse)
                finding = replace(finding, step=finding.step or view.position, check=check)
            yield Ruling(entry.clause, finding, perf_counter() - started)


@lru_cache(256)
def _panels(profile: Profile, wanted: frozenset[str] | None) -> dict[type[View], tuple[Judge, ...]]:
    """List the judges that may be asked, by the kind of view that they look at."""
    return {
        kind: tuple(
            entry
            for entry in entries
            if (wanted is None or entry.clause in wanted)
            and profile in registry()[entry.clause].profiles
        )
        for kind, entries in judges().items()
    }


def _broke_off(view: View) -> bool:
    """Tell whether a step that had to work raised, or the target's process was lost in it."""
    raised = view.seen.raised is not None and not isinstance(view, FaultView)
    return raised or view.seen.lost is not None


def _speaks(entry: Judge, view: View) -> bool:
    """Tell whether a judge has something to say on a step that came to its end."""
    return not entry.value or view.readable


def _speaks_of_loss(entry: Judge, view: View) -> bool:
    """Tell whether a judge has something to say on a step that did not."""
    if isinstance(view, FaultView):
        return True
    if _is_sparse_call(view) and not view.after_loss and not entry.clause.startswith("sparse."):
        return False
    return entry.value


def _of_loss(entry: Judge, view: View) -> Finding | None:
    if view.seen.lost is not None:
        return _lost(view, view.seen.lost)
    return None if entry.may_refuse else _exception(view)


def _is_sparse_call(view: View) -> bool:
    """Tell whether a call has sparse=True, which says nothing but how the gradient is stored."""
    return isinstance(view, CallView) and view.options.sparse


def _exception(view: View) -> Finding:
    return Finding(
        f"raised {view.seen.raised}, where nothing is wrong with the call",
        str(view.seen.raised),
        "no exception",
        check=Check("", "works"),
        refused=isinstance(view, DoubleBackwardView),
    )


def lost_finding(lost: Lost) -> Finding:
    """Word a loss of the target's process.

    Parameters
    ----------
    lost : Lost

    Returns
    -------
    Finding
    """
    said = "crashed" if lost.kind == "crash" else "did not come back"
    return Finding(f"{said}: {lost.detail}", lost.detail, lost=lost.kind)


def _lost(view: View, lost: Lost) -> Finding:
    fault = isinstance(view, FaultView)
    wanted = "an exception" if fault else "an answer"
    check = Check("", "raises" if fault else "works")
    return replace(lost_finding(lost), exact=wanted, check=check)
