"""What a report says otherwise than an earlier one of the same target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from embconform.conformance.render.matrix.model import Cell, Column
from embconform.conformance.report import BROKEN, Status


class Kind(StrEnum):
    """How a clause's status changed, the gravest first."""

    BROKEN = "newly broken"
    OTHERWISE = "broken in another way"
    DECLARED = "newly declared as a known deviation"
    REWORDED = "known deviation, declared otherwise"
    UNEXPECTED = "known deviation that no longer shows"
    UNTESTED = "newly untested"
    UNSUPPORTED = "newly unsupported"
    GONE = "no longer judged"
    PASSING = "newly passing"
    ADDED = "judged for the first time"


GOOD: Final = frozenset({Kind.PASSING, Kind.ADDED})
"""What a reviewer need not look at."""
_BY_STATUS: Final = {
    Status.PASS: Kind.PASSING,
    Status.DEVIATION: Kind.DECLARED,
    Status.UNEXPECTED_PASS: Kind.UNEXPECTED,
    Status.UNTESTED: Kind.UNTESTED,
    Status.UNSUPPORTED: Kind.UNSUPPORTED,
}


@dataclass(frozen=True)
class Change:
    """A clause that became something else.

    Attributes
    ----------
    clause : str
        Its id.
    kind : Kind
    before, now : Cell or None
        None where the report does not speak of the clause.
    """

    clause: str
    kind: Kind
    before: Cell | None
    now: Cell | None


@dataclass(frozen=True)
class Comparison:
    """Two reports of a target.

    Attributes
    ----------
    before, now : Column
    """

    before: Column
    now: Column

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """The clauses that changed: the gravest first, then as the reports have them."""
        order = list(Kind)
        return tuple(sorted(self._found(), key=lambda change: order.index(change.kind)))

    def of(self, *kinds: Kind) -> list[Change]:
        """List the changes of some kinds."""
        return [change for change in self.changes if change.kind in kinds]

    @cached_property
    def differences(self) -> tuple[tuple[str, str, str], ...]:
        """What makes the runs two different ones: a name, what it was, and what it is."""
        names = ("profile", "device", "budget", "seed", "cases")
        found = [(name, getattr(self.before, name), getattr(self.now, name)) for name in names]
        was, now = self.before.environment, self.now.environment
        found += [(name, was.get(name, "not said"), said) for name, said in now.items()]
        found += [(name, said, "not said") for name, said in was.items() if name not in now]
        return tuple((name, str(a), str(b)) for name, a, b in found if str(a) != str(b))

    def _found(self) -> Iterator[Change]:
        for clause in dict.fromkeys((*self.now.cells, *self.before.cells)):
            before, now = self.before.cells.get(clause), self.now.cells.get(clause)
            kind = _kind(before, now)
            if kind is not None:
                yield Change(clause, kind, before, now)


def _kind(before: Cell | None, now: Cell | None) -> Kind | None:
    """Name the change; None for none."""
    if now is None:
        return Kind.GONE
    was = None if before is None else before.status
    if now.status in BROKEN:
        if was not in BROKEN:
            return Kind.BROKEN
        return None if was is now.status else Kind.OTHERWISE
    if before is not None and was is now.status:
        declared = now.status in (Status.DEVIATION, Status.UNEXPECTED_PASS)
        same = (before.reason, before.link) == (now.reason, now.link)
        return Kind.REWORDED if declared and not same else None
    if before is None and now.status is Status.PASS:
        return Kind.ADDED
    return _BY_STATUS[now.status]


def nearest(columns: Sequence[Column], now: Column) -> Column | None:
    """Choose the report of the same target whose run was most like another one.

    Parameters
    ----------
    columns : sequence of Column
    now : Column

    Returns
    -------
    Column or None
        The first of equals; None where there is no report of the target.
    """

    def likeness(before: Column) -> tuple[bool, ...]:
        names = ("profile", "device", "budget", "seed")
        return tuple(getattr(before, name) == getattr(now, name) for name in names)

    own = [before for before in columns if before.target == now.target]
    return max(own, key=likeness, default=None)
