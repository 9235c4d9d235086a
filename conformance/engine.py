"""Run a backend through every stratum and judge it by every clause."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import FlakyFailure, HypothesisWarning

from embconform.backends.backend import Backend, Described
from embconform.conformance.case import Case
from embconform.conformance.draws import cases
from embconform.conformance.isolation.limits import MOST_CRASHES, MOST_TIMEOUTS
from embconform.conformance.judging import Ruling, lost_finding, rule
from embconform.conformance.options import BUDGETS, RunOptions
from embconform.conformance.outcome import Lost, Outcome
from embconform.conformance.probes import Probe, probes
from embconform.conformance.report import Report
from embconform.conformance.results import report
from embconform.conformance.runner import Runner
from embconform.conformance.shrinking import plainer
from embconform.conformance.strata import Structure, fits, strata
from embconform.conformance.tally import Broken, Tally
from embconform.conformance.work import Draws, Unit, units
from embconform.reference.clause import Clause, select

Progress = Callable[[int, int, int], None]
MOST_SHRUNK = 12
"""Failing clauses that are shrunk; those after them show the smallest case that was drawn."""


PARALLEL = ("hot", "crowd", "vast")
"""Sizes at which kernels may use several threads."""


class ClauseBrokenError(AssertionError):
    """Tells Hypothesis that a case breaks the clause that is being shrunk."""


@dataclass
class Engine:
    """One run of one target.

    Attributes
    ----------
    runner : Runner
    options : RunOptions
    stop : callable
        Asked between units of work; the run ends where it says yes.
    ended : str
        Why the run ended before its time; empty where it did not.
    """

    runner: Runner
    options: RunOptions
    stop: Callable[[], bool] = lambda: False
    backend: Described = field(init=False)
    clauses: list[Clause] = field(init=False)
    wanted: frozenset[str] = field(init=False)
    tallies: dict[str, Tally] = field(init=False)
    cases: int = 0
    most_in_a_stratum: int = 1
    notes: list[str] = field(default_factory=list)
    ended: str = ""

    def __post_init__(self) -> None:
        self.backend = self.runner.description
        self.clauses = select(self.options.profile, self.options.select)
        able = self.backend.able
        self.wanted = frozenset(clause.id for clause in self.clauses if clause.needs <= able)
        self.tallies = {clause.id: Tally() for clause in self.clauses}
        self.deviations = {row.clause: row for row in self.options.deviations}
        seconds = self.options.seconds_allowed(compiled=self.backend.compiled)
        self.deadline = monotonic() + seconds

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
        """Run every probe and every stratum, or up to what ends the run."""
        work = self.work()
        for done, unit in enumerate(work):
            if progress:
                progress(done, len(work), len(self.counting_failures()))
            self.do(unit)
            self.ended = self.why_end()
            if self.ended:
                break
        if progress:
            progress(len(work), len(work), len(self.counting_failures()))

    def why_end(self) -> str:
        """Say why the run ends here; nothing where it goes on."""
        crashes, timeouts = self.runner.losses
        if self.stop():
            return "the run was interrupted"
        if self.options.fail_fast and self.counting_failures():
            return "the run stopped early"
        if timeouts >= MOST_TIMEOUTS:
            return f"the run was given up after {timeouts} timeouts"
        if crashes >= MOST_CRASHES:
            return f"the run was given up after {crashes} crashes"
        if monotonic() > self.deadline:
            return "the run's time was over"
        return ""

    @property
    def interrupted(self) -> bool:
        """Whether somebody stopped the run."""
        return self.stop()

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
        seen = self.runner.probe(probe.name, options.profile, options.seed)
        if self.stop():
            return
        if isinstance(seen, Lost):
            finding = lost_finding(seen)
            rulings = [Ruling(clause, finding) for clause in sorted(probe.clauses)]
        else:
            rulings = probe.judge(seen, self.backend, options.profile, options.seed)
        self.cases += 1
        for ruling in rulings:  # one by one: some may be refused, and others answered
            if ruling.clause in self.wanted:
                self._count([ruling], None, None)

    def explore(self, draws: Draws) -> None:
        """Draw cases from a stratum and judge them, up to one that the process did not survive."""
        lost = False

        def body(case: Case) -> None:
            nonlocal lost
            if lost or self.stop():
                return
            outcome = self._observe(case, draws.structure)
            if self.stop():
                return
            lost = any(step.lost for step in outcome.steps)
            self.cases += 1
            self._count(rule(case, outcome, self.wanted), case, draws.structure)

        self._drive(draws, (Phase.generate,), body)

    def shrink_all(self) -> None:
        """Shrink the cases of the broken clauses that are not declared, as far as time allows."""
        broken = [c.id for c in self.clauses if self.tallies[c.id].failed]
        undeclared = [clause for clause in broken if clause not in self.deviations]
        for clause in undeclared[: 1 if self.options.fail_fast else MOST_SHRUNK]:
            smallest = self.tallies[clause].smallest
            if smallest is not None and smallest.case is not None and not self.stop():
                self.shrink(clause)

    def shrink(self, clause: str) -> None:
        """Look for a plainer stratum that breaks a clause, and let Hypothesis shrink the case."""
        examples = 2 * self.most_in_a_stratum
        start = self.tallies[clause].smallest
        assert start is not None
        assert start.structure is not None
        structure = start.structure
        if start.finding.lost == "timeout":
            return
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
            if self.stop() or self.runner.losses[0] > 2 * MOST_CRASHES:
                return
            outcome = self._observe(case, structure)
            for ruling in rule(case, outcome, frozenset({clause})):
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

    def _observe(self, case: Case, structure: Structure) -> Outcome:
        return self.runner.observe(case, parallel=structure.size in PARALLEL)

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

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)  # a large case has a large repr
            drive()


def _digest(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6])


def _shares(wished: list[int], most: int | None) -> list[int]:
    """Share the cases out among the strata; the first ones get theirs where `most` is small."""
    if most is None:
        return wished
    each, rest = divmod(most, len(wished))
    return [share for share in (each + (k < rest) for k in range(len(wished))) if share]


def run(
    subject: Backend | Runner,
    options: RunOptions,
    *,
    target: str,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Validate a target.

    Parameters
    ----------
    subject : Backend or Runner
        A Backend is run in this process.
    options : RunOptions
    target : str
        How the user named it.
    progress : callable, optional
        Called with units of work done, units in all, and failing clauses so far.
    stop : callable, optional
        The run ends where it says yes, and the report tells so.

    Returns
    -------
    Report
    """
    started = perf_counter()
    engine = Engine(_runner(subject, options.device), options, stop)
    engine.explore_all(progress)
    engine.shrink_all()
    return report(engine, target, perf_counter() - started)


def _runner(subject: Backend | Runner, device: str) -> Runner:
    if not isinstance(subject, Backend):
        return subject
    from embconform.conformance.in_process import InProcess

    runner = InProcess(subject, device)
    runner.prepare()
    return runner
