"""Run one planted bug and note every clause that catches it, and when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from time import perf_counter
from typing import Any, Literal

from embconform.backends.adapt import as_backend
from embconform.backends.deviations import load
from embconform.backends.eager import BACKEND as EAGER
from embconform.backends.textbook import BACKEND as TEXTBOOK
from embconform.conformance.cases.case import Case
from embconform.conformance.cases.structure import Structure
from embconform.conformance.judging import judges
from embconform.conformance.options import RunOptions
from embconform.conformance.outcome import Outcome
from embconform.conformance.probes.registry import Probe, probes
from embconform.conformance.running.in_process import InProcess
from embconform.conformance.running.part import Part
from embconform.conformance.running.tally import Broken
from embconform.conformance.running.work import Draws, Together, Unit
from embconform.mutants.kernel import Kernel
from embconform.mutants.module import Layer
from embconform.mutants.registry import Planted
from embconform.mutants.transforms_parts import Parts
from embconform.proof.replaying import ReplayingExplorer
from embconform.reference.clause import Level, Profile, registry

PROGRAMS = "programs"
"""In the place of a budget: the probes alone that the quick one lacks, of compiled programs."""
GRACE = 200
"""Cases that a bug is run on for its own clause once another clause has caught it."""
Until = Literal["any", "own", "second", "end"]
"""Stop at the first clause that counts, at the bug's own or GRACE cases after the first, at the
second one, or not at all."""


@dataclass(frozen=True)
class Catch:
    """A clause that a planted bug broke.

    Attributes
    ----------
    clause : str
    cases : int
        Cases run until then.
    seconds : float
        Wall time until then.
    scripted : bool
        Whether the smallest case that was drawn can be written as a script of its own.
    """

    clause: str
    cases: int
    seconds: float
    scripted: bool


@dataclass(frozen=True)
class Hunt:
    """What became of a planted bug.

    Attributes
    ----------
    name, profile, clause, story : str
        As it was planted.
    seed : int
    budget : str
        The last that was tried.
    catches : tuple of Catch
        By clauses that count, the first to break first.
    cases : int
    seconds : float
    """

    name: str
    profile: str
    clause: str
    story: str
    seed: int
    budget: str
    catches: tuple[Catch, ...]
    cases: int
    seconds: float

    @property
    def caught(self) -> bool:
        """Whether a clause that counts was broken."""
        return bool(self.catches)

    @property
    def own(self) -> Catch | None:
        """The catch by the clause that it was planted for."""
        return next((catch for catch in self.catches if catch.clause == self.clause), None)

    def without(self, clauses: Collection[str]) -> Hunt:
        """Leave out what some clauses caught: those that a right embedding breaks prove nothing."""
        kept = tuple(catch for catch in self.catches if catch.clause not in clauses)
        return replace(self, catches=kept)

    def as_dict(self) -> dict[str, Any]:
        """Give plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Hunt:
        """Read what :meth:`as_dict` gave."""
        return cls(**data | {"catches": tuple(Catch(**catch) for catch in data["catches"])})


def hunt(
    bug: Planted,
    *,
    seed: int = 0,
    budgets: tuple[str, ...] = ("quick", "default"),
    until: Until = "own",
    select: str = "*",
    aimed: bool = False,
) -> Hunt:
    """Run a planted bug until it is caught.

    Parameters
    ----------
    bug : Planted
    seed : int
    budgets : tuple of str
        The next is tried only where nothing has caught the bug yet; :data:`PROGRAMS` among them.
    until : str
        When to stop within a budget.
    select : str
        Patterns of the ids of the clauses that judge.
    aimed : bool
        Begin with the probes and cases that rule on the bug's own clause, as a right embedding
        shows, in the place of a run's order: many bugs are found sooner, and the same ones.

    Returns
    -------
    Hunt
        A clause counts if it is a MUST or a MAY, or if the bug is planted for a SHOULD, and if
        the right embedding passes it that the bug is made of.
    """
    started = perf_counter()
    strict = registry()[bug.clause].level is Level.SHOULD
    runner = InProcess(as_backend(bug.where, bug.target))
    runner.prepare()
    without = _broken_by_its_base(bug)
    catches: dict[str, Catch] = {}
    done: set[Unit] = set()
    cases = 0
    for budget in _worth_trying(budgets, bug.clause if aimed else select):
        profile, size = Profile(bug.profile), "default" if budget == PROGRAMS else budget
        options = RunOptions(profile, size, seed=seed, strict=strict, select=select)
        explorer, seen = ReplayingExplorer(runner, options), Part()
        work = _aimed(bug, options, explorer.work) if aimed else enumerate(explorer.work)
        for number, unit in work:
            if unit in done or not _may_rule(unit, explorer.wanted, budget):
                continue  # a larger budget begins with the cases of a smaller one
            done.add(unit)
            seen.merge(explorer.do(number) or Part())
            for clause in seen.counting(explorer.clauses, (), strict=strict):
                if clause not in catches and clause not in without:
                    catches[clause] = _catch(seen, clause, cases, perf_counter() - started)
            if _enough(list(catches.values()), bug.clause, until, cases + seen.cases):
                break
        cases += seen.cases
        if catches:
            break
    return Hunt(
        name=bug.name,
        profile=bug.profile,
        clause=bug.clause,
        story=bug.story,
        seed=seed,
        budget=budget,
        catches=tuple(catches.values()),
        cases=cases,
        seconds=round(perf_counter() - started, 3),
    )


def _worth_trying(budgets: tuple[str, ...], clause: str) -> Iterator[str]:
    """Leave out all budgets but the last that do not exercise a clause."""
    *smaller, last = budgets
    at = [probe.budgets for probe in probes() if clause in probe.clauses]
    yield from (budget for budget in smaller if not at or any(budget in each for each in at))
    yield last


def _may_rule(unit: Unit, wanted: Collection[str], budget: str) -> bool:
    """Tell whether a unit of work is in a budget and can rule on a clause that is wanted."""
    if isinstance(unit, Probe):
        return budget != PROGRAMS or "quick" not in unit.budgets
    if isinstance(unit, Together):
        return budget != PROGRAMS
    return budget != PROGRAMS and not _drawn().isdisjoint(wanted)


def _aimed(bug: Planted, options: RunOptions, work: list[Unit]) -> Iterable[tuple[int, Unit]]:
    """Number the units, those first that rule on the bug's own clause at the quick budget."""
    drawn = bug.clause in _drawn()
    wanted = _exercising(options.profile, options.seed)[bug.clause] if drawn else frozenset()

    def is_late(pair: tuple[int, Unit]) -> bool:
        unit = pair[1]
        if isinstance(unit, Draws):
            return wanted.isdisjoint(each.through("functional") for each in unit.structures)
        together = unit.probes if isinstance(unit, Together) else (unit,)
        return all(bug.clause not in probe.clauses for probe in together)

    return sorted(enumerate(work), key=is_late)


class _Noting(ReplayingExplorer):
    """Notes which strata exercise each clause."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.exercising: defaultdict[str, set[Structure]] = defaultdict(set)

    def judge(
        self, case: Case, structure: Structure, outcome: Outcome, number: int, part: Part
    ) -> bool:
        one = Part()
        lost = super().judge(case, structure, outcome, number, one)
        for clause in one.tallies:
            self.exercising[clause].add(structure.through("functional"))
        part.merge(one)
        return lost


@cache
def _exercising(profile: Profile, seed: int) -> Mapping[str, set[Structure]]:
    """Find the strata of a quick run that exercise each clause, on a right embedding."""
    base = TEXTBOOK if profile is Profile.TEXTBOOK else as_backend("Kernel", Kernel())
    explorer = _Noting(InProcess(base), RunOptions(profile, "quick", seed=seed))
    for number, unit in enumerate(explorer.work):
        if isinstance(unit, Draws):
            explorer.do(number)
    return explorer.exercising


@cache
def _drawn() -> frozenset[str]:
    """Name the clauses that cases are judged by; the others have probes of their own."""
    return frozenset(entry.clause for entries in judges().values() for entry in entries)


def _catch(seen: Part, clause: str, before: int, seconds: float) -> Catch:
    smallest = seen.tallies[clause].smallest
    assert isinstance(smallest, Broken)
    scripted = smallest.case is not None and bool(smallest.finding.check)
    return Catch(clause, before + seen.cases, round(seconds, 3), scripted)


def _enough(catches: list[Catch], own: str, until: Until, cases: int) -> bool:
    match until:
        case "any":
            return bool(catches)
        case "own":
            late = bool(catches) and cases > catches[0].cases + GRACE
            return late or any(catch.clause == own for catch in catches)
        case "second":
            return len(catches) > 1
        case "end":
            return False


def _broken_by_its_base(bug: Planted) -> frozenset[str]:
    """Give the clauses that the embedding breaks of which the bug is made, before it is wrong.

    The bases of our own break none. Where a bug has none of them, it calls torch or the textbook
    layer, whose deviations are declared.
    """
    target = bug.target
    bases = target.__mro__ if isinstance(target, type) else type(target).__mro__
    if {Kernel, Layer, Parts} & set(bases):
        return frozenset()
    below = EAGER if bug.profile == "torch" else TEXTBOOK
    declared = load(below.deviations) if below.deviations else ()
    return frozenset(row.clause for row in declared) - {bug.clause}
