"""Run a backend through every stratum and judge it by every clause."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import FlakyFailure, HypothesisWarning

from embconform.backends.backend import Backend
from embconform.conformance.case import Case
from embconform.conformance.draws import cases
from embconform.conformance.environment import environment
from embconform.conformance.finding import Finding
from embconform.conformance.judging import Ruling, rule
from embconform.conformance.observe import observe, raised_from
from embconform.conformance.options import BUDGETS, RunOptions
from embconform.conformance.probes import Probe, probes
from embconform.conformance.report import ClauseResult, Failure, Report, Status
from embconform.conformance.repro import script, snippet
from embconform.conformance.shrinking import plainer
from embconform.conformance.strata import Structure, fits, strata
from embconform.conformance.tally import Broken, Tally
from embconform.conformance.work import Draws, Unit, units
from embconform.reference.clause import Clause, select

Progress = Callable[[int, int, int], None]
MOST_SHRUNK = 12
"""Failing clauses that are shrunk; those after them show the smallest case that was drawn."""


class ClauseBrokenError(AssertionError):
    """Tells Hypothesis that a case breaks the clause that is being shrunk."""


@dataclass
class Engine:
    """One run of one backend."""

    backend: Backend
    options: RunOptions
    clauses: list[Clause] = field(init=False)
    wanted: frozenset[str] = field(init=False)
    tallies: dict[str, Tally] = field(init=False)
    cases: int = 0
    most_in_a_stratum: int = 1
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clauses = select(self.options.profile, self.options.select)
        able = self.backend.able
        self.wanted = frozenset(clause.id for clause in self.clauses if clause.needs <= able)
        self.tallies = {clause.id: Tally() for clause in self.clauses}
        self.deviations = {row.clause: row for row in self.options.deviations}

    def work(self) -> list[Unit]:
        """List the probes and the draws from strata in the order in which they are done."""
        budget = BUDGETS[self.options.budget]
        structures = strata(
            self.backend, self.options.profile, arrays=budget.arrays, seed=self.options.seed
        )
        wished = [budget.cases(structure) for structure in structures]
        shares = _shares(wished, self.options.max_examples)
        self.most_in_a_stratum = max(shares, default=1)
        side = [
            probe
            for probe in probes()
            if self.options.budget in probe.budgets and probe.fits(self.backend, self.wanted)
        ]
        return units(structures, shares, side)

    def explore_all(self, progress: Progress | None) -> None:
        """Run every probe and every stratum, or up to the first failure under fail_fast."""
        work = self.work()
        total = len(work)
        for done, unit in enumerate(work):
            if progress:
                progress(done, total, len(self.counting_failures()))
            self.do(unit)
            if self.options.fail_fast and self.counting_failures():
                break
        if progress:
            progress(total, total, len(self.counting_failures()))

    def counting_failures(self) -> list[str]:
        """List the clauses broken so far that count against the verdict."""
        return [
            clause.id
            for clause in self.clauses
            if self.tallies[clause.id].failed
            and clause.id not in self.deviations
            and (clause.level != "SHOULD" or self.options.strict)
        ]

    def do(self, unit: Unit) -> None:
        """Do one unit of work."""
        if isinstance(unit, Draws):
            self.explore(unit)
        else:
            self.probe(unit)

    def probe(self, probe: Probe) -> None:
        """Run a probe and count its rulings."""
        options = self.options
        try:
            rulings = probe.run(self.backend, options.profile, options.seed, options.device)
        except SystemExit as error:  # nothing of ours raises it
            finding = Finding(f"raised {raised_from(error)}", str(raised_from(error)))
            rulings = [Ruling(clause, finding) for clause in sorted(probe.clauses)]
        rulings = [ruling for ruling in rulings if ruling.clause in self.wanted]
        self.cases += 1
        for ruling in rulings:  # one by one: some may be refused, and others answered
            self._count([ruling], None, None)

    def explore(self, draws: Draws) -> None:
        """Draw cases from a stratum and judge them."""

        def body(case: Case) -> None:
            self.cases += 1
            self._count(self._rulings(case), case, draws.structure)

        self._drive(draws, (Phase.generate,), body)

    def shrink(self, clause: str) -> None:
        """Look for a plainer stratum that breaks a clause, and let Hypothesis shrink the case."""
        examples = 2 * self.most_in_a_stratum
        start = self.tallies[clause].smallest
        assert start is not None
        assert start.structure is not None
        structure = start.structure
        if not self.backend.compiled:
            structure = plainer(
                structure,
                lambda other: self._breaks(clause, Draws(other, examples), (Phase.generate,)),
            )
        both = (Draws(structure, examples, number) for number in (0, 1))
        if not any(self._breaks(clause, each, (Phase.generate, Phase.shrink)) for each in both):
            self.notes.append(
                f"{clause}: the failure did not repeat when its case was run alone; it depends on "
                "the calls before it, or on chance"
            )

    def _breaks(self, clause: str, draws: Draws, phases: tuple[Phase, ...]) -> bool:
        """Tell whether a stratum breaks a clause, and keep the smallest case that does."""
        structure = draws.structure
        if not fits(structure, self.backend, self.options.profile):
            return False

        def body(case: Case) -> None:
            for ruling in self._rulings(case, frozenset({clause})):
                if ruling.finding is not None and not ruling.finding.refused:
                    self.tallies[clause].keep(Broken(ruling.finding, case, structure))
                    raise ClauseBrokenError(clause)

        try:
            self._drive(draws, phases, body)
        except ClauseBrokenError:
            return True
        except FlakyFailure:
            return False
        return False

    def _rulings(self, case: Case, wanted: frozenset[str] | None = None) -> list[Ruling]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = observe(self.backend, case, self.options.device)
        return list(rule(case, outcome, wanted or self.wanted))

    def _count(
        self, rulings: Iterable[Ruling], case: Case | None, structure: Structure | None
    ) -> None:
        by_clause: dict[str, list[Ruling]] = {}
        for ruling in rulings:
            by_clause.setdefault(ruling.clause, []).append(ruling)
        for clause, group in by_clause.items():
            self.tallies[clause].add(group, case, structure)

    def _drive(self, draws: Draws, phases: tuple[Phase, ...], body: Callable[[Case], None]) -> None:
        structure, later = draws.structure, draws.round > 0
        salt = _digest(self.options.seed, self.options.profile.value, structure.name, draws.round)
        drawn = 0
        strategy = cases(
            structure, self.options.profile, salt=salt % 2**20, compiled=self.backend.compiled
        )

        @seeded(salt)
        @settings(
            max_examples=draws.examples + later,
            phases=phases,
            database=None,
            deadline=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            print_blob=False,
        )
        @given(strategy)
        def drive(case: Case) -> None:
            nonlocal drawn
            drawn += 1
            if not later or drawn > 1:  # each round begins with the simplest case
                body(case)

        with _threads(structure, self.backend.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)  # a large case has a large repr
            drive()


@contextmanager
def _threads(structure: Structure, most: int | None) -> Iterator[None]:
    """Pin torch to one thread, but where thousands of indices may make a kernel go parallel."""
    before = torch.get_num_threads()
    parallel = structure.size in ("hot", "crowd", "vast")
    torch.set_num_threads((most or before) if parallel else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _digest(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6])


def _shares(wished: list[int], most: int | None) -> list[int]:
    """Share the cases out among the strata; the first ones get theirs where `most` is small."""
    if most is None:
        return wished
    each, rest = divmod(most, len(wished))
    return [share for share in (each + (k < rest) for k in range(len(wished))) if share]


def run(
    backend: Backend, options: RunOptions, *, target: str, progress: Progress | None = None
) -> Report:
    """Validate a backend.

    Parameters
    ----------
    backend : Backend
    options : RunOptions
    target : str
        How the user named it.
    progress : callable, optional
        Called with units of work done, units in all, and failing clauses so far.

    Returns
    -------
    Report
    """
    started = perf_counter()
    if backend.prepare:
        backend.prepare()
    engine = Engine(backend, options)
    engine.explore_all(progress)
    broken = [c.id for c in engine.clauses if engine.tallies[c.id].failed]
    undeclared = [clause for clause in broken if clause not in engine.deviations]
    for clause in undeclared[: 1 if options.fail_fast else MOST_SHRUNK]:
        smallest = engine.tallies[clause].smallest
        if smallest is not None and smallest.case is not None:
            engine.shrink(clause)
    results = tuple(_result(clause, engine, target) for clause in engine.clauses)
    return Report(
        target=target,
        profile=options.profile,
        device=options.device,
        seed=options.seed,
        budget=options.budget,
        clauses=results,
        cases=engine.cases,
        seconds=perf_counter() - started,
        environment=environment(options.device),
        notes=tuple(engine.notes),
        strict=options.strict,
    )


def _result(clause: Clause, engine: Engine, target: str) -> ClauseResult:
    tally = engine.tallies[clause.id]
    plain = ClauseResult(
        clause,
        Status.PASS,
        exercised=tally.exercised,
        failed=tally.failed,
        seconds=tally.seconds,
        deviation=engine.deviations.get(clause.id),
    )
    if tally.failed:
        assert tally.smallest is not None
        failure = _failure(clause, tally.smallest, engine.backend, target)
        status = Status.DEVIATION if plain.deviation else Status.FAIL
        return replace(plain, status=status, failure=failure, detail=failure.message)
    if not tally.exercised:
        missing = sorted(clause.needs - engine.backend.able)
        if missing:
            detail = f"{engine.backend.name} has no {', '.join(missing)}"
            return replace(plain, status=Status.UNSUPPORTED, deviation=None, detail=detail)
        if _left_out(clause, engine.options.budget):
            detail = f"the {engine.options.budget} budget leaves it out"
            return replace(plain, status=Status.UNTESTED, detail=detail, left_out=True)
        reason = "the run stopped early" if engine.options.fail_fast else "no case applied"
        return replace(plain, status=Status.UNTESTED, detail=reason)
    if tally.refused == tally.exercised:
        return replace(plain, status=Status.UNSUPPORTED, detail=f"refused: {tally.refusal}")
    if plain.deviation is not None:
        detail = "declared as a deviation, but no case broke it"
        return replace(plain, status=Status.UNEXPECTED_PASS, detail=detail)
    partly = f"{tally.refused} cases refused: {tally.refusal}" if tally.refused else ""
    return replace(plain, detail=partly)


def _left_out(clause: Clause, budget: str) -> bool:
    """Tell whether the clause has a probe, and none that runs in the budget."""
    budgets = [probe.budgets for probe in probes() if clause.id in probe.clauses]
    return bool(budgets) and not any(budget in names for names in budgets)


def _failure(clause: Clause, broken: Broken, backend: Backend, target: str) -> Failure:
    finding, case = broken.finding, broken.case
    head = f"{clause.id}: {clause.sentence}"
    return Failure(
        message=finding.message,
        got=finding.got,
        exact=finding.exact,
        bound=finding.bound,
        ulp=finding.ulp,
        call="" if case is None else snippet(case, finding),
        script="" if case is None else script(case, finding, backend, target, head),
        indices=0 if case is None else case.most_indices,
        rows=0 if case is None else case.rows,
    )
