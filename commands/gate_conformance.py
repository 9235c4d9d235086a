"""Judge base and head by the same cases, and tell what head has lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from embconform.conformance.render.json import SCHEMA, as_dict
from embconform.performance.gate.report import Clauses
from embconform.performance.gate.workers import SideError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from embconform.performance.gate.messages import Side


@dataclass(frozen=True)
class Judged:
    """What a side was found to be.

    Attributes
    ----------
    clauses : dict of str to tuple of two str
        Under each clause's id its status, and what is said of it.
    cases : int
    cut : bool
        Whether the run ended early.
    """

    clauses: dict[str, tuple[str, str]]
    cases: int = 0
    cut: bool = False

    @property
    def passed(self) -> list[str]:
        """The clauses that pass."""
        return [clause for clause, (status, _) in self.clauses.items() if status == "pass"]


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

    Where the sides are embconform itself, each is judged by its own suite.

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
        recovered = [clause for clause in again.passed if clause in lost]
        lost = {clause: said for clause, said in lost.items() if clause not in recovered}
        if recovered:
            cut = cut or f"{', '.join(recovered)} failed on head once and passed once"
    return Clauses(lost, tuple(gained), len(passed), cut, now.cases)


def difference(before: Judged, now: Judged) -> tuple[list[str], dict[str, str], list[str]]:
    """Tell the clauses that pass on both sides, that head has lost, and that it has gained.

    A clause that a cut run has not come to is not lost.

    Parameters
    ----------
    before, now : Judged
        Base and head.

    Returns
    -------
    passed : list of str
    lost : dict of str to str
        With what became of each.
    gained : list of str
    """
    old = dict.fromkeys(before.passed)
    lost = {
        clause: f"{status}: {said}" if said else status
        for clause, (status, said) in now.clauses.items()
        if clause in old and status != "pass" and not (now.cut and status == "untested")
    }
    lost |= {clause: "judged no more" for clause in old if clause not in now.clauses}
    both = [clause for clause in now.passed if clause in old]
    return both, lost, [clause for clause in now.passed if clause not in old]


def _cut(judged: Judged, side: str) -> str:
    return f"{side} could not be judged to the end" if judged.cut else ""


def _judge(side: Side, search_path: tuple[str, ...], seed: int, select: str) -> Judged:
    if side.is_embconform:
        return _by_itself(side, seed, select)
    from hypothesis.configuration import set_hypothesis_home_dir

    from embconform.conformance.isolation.isolated import Isolated
    from embconform.conformance.options import RunOptions
    from embconform.conformance.running.engine import run

    path = tuple(dict.fromkeys((*side.roots, *search_path)))
    isolated = Isolated(side.target, "cpu", search_path=path, folder=side.folder)
    with TemporaryDirectory(prefix="embconform-") as folder, isolated:
        set_hypothesis_home_dir(folder)
        try:
            profile = isolated.description.profiles[0]
            options = RunOptions(profile, "quick", seed=seed, device="cpu", select=select)
            return _read(as_dict(run(isolated, options, target=side.target)))
        finally:
            set_hypothesis_home_dir(None)


def _by_itself(side: Side, seed: int, select: str) -> Judged:
    """Let a revision of embconform judge its own backend.

    Raises
    ------
    SideError
        If it doesn't come to a verdict.
    """
    command = [
        sys.executable, "-P", "-m", "embconform", "validate", side.target, "--budget", "quick",
        "--device", "cpu", "--seed", str(seed), "--select", select, "--json", "-",
    ]  # fmt: skip
    path = os.pathsep.join((*side.roots, os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        command, cwd=side.folder, env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    if done.returncode not in (0, 1):
        raise SideError(side.name, f"its embconform validate exits {done.returncode}: {said}")
    report = json.loads(done.stdout)
    if report["schema"] != SCHEMA:
        raise SideError(side.name, f"its embconform writes schema {report['schema']}, not {SCHEMA}")
    return _read(report)


def _read(report: dict[str, Any]) -> Judged:
    """Read a report of schema 1."""
    clauses = {c["id"]: (c["status"], c["detail"]) for c in report["clauses"]}
    return Judged(clauses, report["cases"], bool(report["interrupted"] or report["part"]))
