"""The kill table: which planted bugs were caught, by group of clauses, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from embconform import __version__
from embconform.conformance.environment import environment
from embconform.mutants.registry import Planted, all_planted, by_name
from embconform.proof.hunt import Hunt
from embconform.proof.pool import Died
from embconform.proof.right import BASES, Acceptance, right
from embconform.proof.tasks import HuntTask, RightTask, Task


def chosen(select: str) -> list[Planted]:
    """List the bugs that are planted for clauses whose id matches one of the patterns."""
    patterns = [part.strip() for part in select.split(",")]
    return [bug for bug in all_planted() if any(fnmatchcase(bug.clause, part) for part in patterns)]


def tasks(select: str, seed: int) -> list[Task]:
    """List what a self-test does: the right embeddings, which take longest, and then the bugs."""
    rights = [RightTask(name, seed=seed, select=select) for name in right()]
    return [
        *rights,
        *(HuntTask(bug.name, bug.profile, seed=seed, aimed=True) for bug in chosen(select)),
    ]


@dataclass(frozen=True)
class Group:
    """A line of the table.

    Attributes
    ----------
    name : str
        A group of clauses.
    planted, caught, own, scripted : int
        Bugs planted for clauses of the group; those that any clause caught; those that their own
        clause caught; those whose own clause's case can be written as a script.
    """

    name: str
    planted: int
    caught: int
    own: int
    scripted: int


@dataclass
class Kills:
    """What was found of the bugs and of the right embeddings."""

    seed: int = 0
    select: str = "*"
    hunts: list[Hunt] = field(default_factory=list)
    acceptances: list[Acceptance] = field(default_factory=list)
    died: list[tuple[Task, Died]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, task: Task, result: Hunt | Acceptance | Died) -> None:
        """Count a result."""
        if isinstance(result, Hunt):
            self.hunts.append(result)
        elif isinstance(result, Acceptance):
            self.acceptances.append(result)
        else:
            self.died.append((task, result))

    def judged(self) -> list[Hunt]:
        """List the bugs, each by the clauses that the right embedding passes it is made of.

        A SHOULD clause that this one breaks counts for a bug that is planted for it: some have no
        other fault than the document's own layer.
        """
        order = {key: number for number, key in enumerate(by_name())}
        hunts = sorted(self.hunts, key=lambda hunt: order[hunt.name, hunt.profile])
        return [hunt.without(self._unsound(hunt)) for hunt in hunts]

    def _unsound(self, hunt: Hunt) -> set[str]:
        bases = [done for done in self.acceptances if done.name in BASES[hunt.profile]]
        refused = {clause for done in bases for clause in done.refused}
        warned = {clause for done in bases for clause in done.warned}
        return refused | (warned - {hunt.clause})

    @property
    def survivors(self) -> list[Hunt]:
        """The bugs that nothing caught."""
        return [hunt for hunt in self.judged() if not hunt.caught]

    @property
    def refused(self) -> list[Acceptance]:
        """The right embeddings that something was held against."""
        return [done for done in self.acceptances if not done.accepted]

    @property
    def passed(self) -> bool:
        """Whether every bug was caught and every right embedding accepted."""
        return not (self.survivors or self.refused or self.died)

    def groups(self) -> list[Group]:
        """Count by group of clauses, in the order of the specification."""
        return [
            _group(name, [hunt for hunt in self.judged() if hunt.clause.startswith(f"{name}.")])
            for name in _groups(self.judged())
        ]

    def total(self) -> Group:
        """Count all."""
        return _group("all", self.judged())

    def as_dict(self) -> dict[str, Any]:
        """Give plain data for JSON."""
        return {
            "schema": 1,
            "embconform": __version__,
            "seed": self.seed,
            "select": self.select,
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
            "environment": environment("cpu"),
            "bugs": [_bug(hunt) for hunt in self.judged()],
            "right": [
                done.as_dict() | {"accepted": done.accepted}
                for done in sorted(self.acceptances, key=lambda done: done.name)
            ],
            "died": [
                {"name": task.name, "kind": _kind(task), "why": died.why}
                for task, died in self.died
            ],
        }


def _kind(task: Task) -> str:
    return "bug" if isinstance(task, HuntTask) else "right"


def _bug(hunt: Hunt) -> dict[str, Any]:
    return hunt.as_dict() | {"caught": hunt.caught, "by_its_own_clause": hunt.own is not None}


def _groups(hunts: Iterable[Hunt]) -> list[str]:
    from embconform.reference.clause import registry

    present = {hunt.clause for hunt in hunts}
    return list(dict.fromkeys(c.group for c in registry().values() if c.id in present))


def _group(name: str, hunts: list[Hunt]) -> Group:
    owns = [hunt.own for hunt in hunts if hunt.own]
    return Group(
        name,
        planted=len(hunts),
        caught=sum(hunt.caught for hunt in hunts),
        own=len(owns),
        scripted=sum(own.scripted for own in owns),
    )
