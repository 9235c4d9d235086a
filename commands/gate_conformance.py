"""Judge base and head by the same cases, and tell what head has lost."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from embconform.performance.gate.report import Clauses

if TYPE_CHECKING:
    from collections.abc import Callable

    from embconform.conformance.report import ClauseResult, Report
    from embconform.performance.gate.messages import Side


def compare(
    base: Side,
    head: Side,
    search_path: tuple[str, ...],
    *,
    seed: int,
    select: str,
    tick: Callable[[str], None],
) -> Clauses:
    """Judge both sides at the quick budget, each in a process of its own.

    Parameters
    ----------
    base, head : Side
    search_path : tuple of str
        What stands behind the sides' roots on ``sys.path``.
    seed : int
    select : str
        Patterns of clause ids.
    tick : callable
        Told what comes next.

    Returns
    -------
    Clauses
        A clause that seems lost has been judged once more.
    """
    tick("judging base")
    before = _judge(base, search_path, seed, select)
    tick("judging head")
    now = _judge(head, search_path, seed, select)
    passed, lost, gained = difference(before, now)
    cut = _cut(before, "base") or _cut(now, "head")
    if lost:
        tick("judging what head has lost once more")
        again = _judge(head, search_path, seed, select)  # the same cases
        recovered = [
            r.clause.id for r in again.clauses if r.status == "pass" and r.clause.id in lost
        ]
        lost = {clause: said for clause, said in lost.items() if clause not in recovered}
        if recovered:
            cut = cut or f"{', '.join(recovered)} failed on head once and passed once"
    return Clauses(lost, tuple(gained), len(passed), cut, now.cases)


def difference(before: Report, now: Report) -> tuple[list[str], dict[str, str], list[str]]:
    """Tell the clauses that pass on both sides, that head has lost, and that it has gained.

    A clause that a cut run has not come to is not lost.

    Parameters
    ----------
    before, now : Report
        Of base and of head.

    Returns
    -------
    passed : list of str
    lost : dict of str to str
        With what became of each.
    gained : list of str
    """
    old = {r.clause.id for r in before.clauses if r.status == "pass"}
    new = {r.clause.id: r for r in now.clauses}
    unreached = now.part is not None
    lost = {
        clause: _said(result)
        for clause, result in new.items()
        if clause in old
        and result.status != "pass"
        and not (unreached and result.status == "untested")
    }
    lost |= dict.fromkeys(old - new.keys(), "judged no more")
    passed = [clause for clause, result in new.items() if result.status == "pass"]
    both = [clause for clause in passed if clause in old]
    return both, lost, [clause for clause in passed if clause not in old]


def _said(result: ClauseResult) -> str:
    said = result.failure.message if result.failure else result.detail
    return f"{result.status.value}: {said}" if said else result.status.value


def _cut(report: Report, side: str) -> str:
    return f"{side} could not be judged to the end" if report.part or report.interrupted else ""


def _judge(side: Side, search_path: tuple[str, ...], seed: int, select: str) -> Report:
    from hypothesis.configuration import set_hypothesis_home_dir

    from embconform.conformance.engine import run
    from embconform.conformance.isolation.isolated import Isolated
    from embconform.conformance.options import RunOptions

    path = tuple(dict.fromkeys((*side.roots, *search_path)))
    isolated = Isolated(side.target, "cpu", search_path=path, folder=side.folder)
    with TemporaryDirectory(prefix="embconform-") as folder, isolated:
        set_hypothesis_home_dir(folder)
        try:
            profile = isolated.description.profiles[0]
            options = RunOptions(profile, "quick", seed=seed, device="cpu", select=select)
            return run(isolated, options, target=side.target)
        finally:
            set_hypothesis_home_dir(None)
