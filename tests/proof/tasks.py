"""What can be run in a process of the pool, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from embconform.mutants.registry import by_name
from embconform.proof.hunt import Hunt, Until, hunt
from embconform.proof.right import Acceptance, accept


@dataclass(frozen=True)
class HuntTask:
    """Run a planted bug; see :func:`embconform.proof.hunt.hunt`."""

    name: str
    profile: str
    seed: int = 0
    budgets: tuple[str, ...] = ("quick", "default")
    until: Until = "own"
    aimed: bool = False


@dataclass(frozen=True)
class RightTask:
    """Run a right embedding; see :func:`embconform.proof.right.accept`."""

    name: str
    seed: int = 0
    budget: str = "quick"
    select: str = "*"


Task = HuntTask | RightTask


def do(task: Task) -> Hunt | Acceptance:
    """Do a task in this process."""
    if isinstance(task, RightTask):
        return accept(task.name, seed=task.seed, budget=task.budget, select=task.select)
    bug = by_name()[task.name, task.profile]
    return hunt(bug, seed=task.seed, budgets=task.budgets, until=task.until, aimed=task.aimed)
