"""Draw cases from strata, put a target through them, and judge it by every clause."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from hypothesis import Phase
from hypothesis.errors import FlakyFailure

from embconform.backends.backend import Described
from embconform.conformance.cases.case import Case
from embconform.conformance.cases.fewest import without_costly
from embconform.conformance.cases.soundness import fits
from embconform.conformance.cases.strata import strata
from embconform.conformance.cases.structure import OUT_OF_RANGE, Structure
from embconform.conformance.isolation.limits import MOST_CRASHES
from embconform.conformance.judging import Ruling, judged, lost_finding, rule
from embconform.conformance.options import BUDGETS, RunOptions
from embconform.conformance.outcome import Lost, Outcome
from embconform.conformance.probes.claims import Unfinished
from embconform.conformance.probes.registry import Probe, probes
from embconform.conformance.running.driver import Batch, Driver, digest
from embconform.conformance.running.part import Part
from embconform.conformance.running.runner import Runner
from embconform.conformance.running.shrinking import plainer
from embconform.conformance.running.tally import Broken, Shrunk
from embconform.conformance.running.work import BATCH, FIRST, Draws, Together, Unit, units
from embconform.reference.clause import Clause, select

PARALLEL: Final = ("hot", "crowd", "vast")
"""Sizes at which kernels may use several threads."""
NOT_REPEATED: Final = (
    "the failure did not repeat when its case was run alone; it depends on the calls before it, or "
    "on chance"
)


class ClauseBrokenError(AssertionError):
    """Tells Hypothesis that a case breaks the clause that is being shrunk."""


@dataclass
class Explorer:
    """Does a run's units of work on one target, in any order.

    What a unit finds depends on the options and the target alone, not on the units before it, so
    that a run can be cut into parts.

    Attributes
    ----------
    runner : Runner
    options : RunOptions
    stop : callable
        Asked between cases; what is being done is given up where it says yes.
    """

    runner: Runner
    options: RunOptions
    stop: Callable[[], bool] = lambda: False
    backend: Described = field(init=False)
    clauses: list[Clause] = field(init=False)
    wanted: frozenset[str] = field(init=False)
    driver: Driver = field(init=False)

    def __post_init__(self) -> None:
        self.backend = self.runner.description
        options = self.options
        self.clauses = select(options.profile, options.select, options.device)
        able = self.backend.able
        self.wanted = frozenset(clause.id for clause in self.clauses if clause.needs <= able)
        one_shape = BUDGETS[options.budget].frugal and self.backend.sizes_compiled
        self.driver = Driver(options.profile, options.seed, self.backend.compiled, one_shape)

    @cached_property
    def work(self) -> list[Unit]:
        """The probes and the draws from strata in the order in which one process does them."""
        structures, shares = self._strata
        side = [
            probe
            for probe in probes()
            if self.options.budget in probe.budgets and probe.fits(self.backend, self.wanted)
        ]
        return units(structures, shares, side, 1 if self.backend.compiled else BATCH)

    @cached_property
    def fingerprint(self) -> str:
        """What two processes must have in common to share the work."""
        options = self.options
        told = [unit if isinstance(unit, Draws) else unit.name for unit in self.work]
        return f"{digest(options.profile.value, options.seed, sorted(self.wanted), told):012x}"

    @cached_property
    def _strata(self) -> tuple[list[Structure], list[int]]:
        budget = BUDGETS[self.options.budget]
        structures = strata(
            self.backend,
            self.options.profile,
            arrays=budget.arrays,
            seed=self.options.seed,
            constants=budget.constants,
            near=budget.near,
        )
        structures = [structure for structure in structures if self._is_wanted(structure)]
        if budget.frugal and self.backend.compiled:
            sizes_compiled = self.backend.sizes_compiled
            structures = without_costly(structures, sizes_compiled=sizes_compiled)
            budget = replace(budget, examples=FIRST, directed=FIRST)
        wished = [budget.cases(structure) for structure in structures]
        return structures, _shares(wished, self.options.max_examples)

    def _is_wanted(self, structure: Structure) -> bool:
        """Tell whether a clause that is wanted may need a structure.

        Indices out of range may take a device along, and with it the process, so there they need
        one of their own clauses.
        """
        if not self.wanted & judged():
            return False
        spared = self.options.device != "cpu" and structure.fault in OUT_OF_RANGE
        return not spared or any(clause.startswith("errors.") for clause in self.wanted)

    def do(self, number: int) -> Part | None:
        """Do one unit of work.

        Parameters
        ----------
        number : int
            Its place in :attr:`work`.

        Returns
        -------
        Part or None
            None where it was given up.
        """
        unit = self.work[number]
        part = Part(done={number})
        before = self.runner.losses
        if isinstance(unit, Draws):
            self._explore(unit, number, part)
        else:
            for probe in unit.probes if isinstance(unit, Together) else (unit,):
                self._probe(probe, number, part)
        after = self.runner.losses
        part.crashes, part.timeouts = after[0] - before[0], after[1] - before[1]
        return None if self.stop() else part

    def _probe(self, probe: Probe, number: int, part: Part) -> None:
        """Run a probe and count its rulings."""
        options = self.options
        seen = self.runner.probe(probe.name, options.profile, options.seed)
        if self.stop():
            return
        if isinstance(seen, Lost):
            finding = lost_finding(seen)
            rulings = [Ruling(clause, finding) for clause in sorted(probe.clauses)]
        else:
            seen = seen.records if isinstance(seen, Unfinished) else seen
            rulings = probe.judge(seen, self.backend, options.profile, options.seed)
        part.cases += 1
        for ruling in rulings:  # one by one: some may be refused, and others answered
            if ruling.clause in self.wanted:
                part.tally(ruling.clause).add([ruling], None, None, number)

    def _explore(self, draws: Draws, number: int, part: Part) -> None:
        """Draw cases from strata and judge them; from each up to one that the target is lost in."""
        lost: set[Structure] = set()

        def body(batch: Batch) -> None:
            left = [(case, structure) for case, structure in batch if structure not in lost]
            outcomes = self.runner.observe_all([(c, s.size in PARALLEL) for c, s in left])
            for case, structure in left:
                if self.stop():
                    return
                if self.judge(case, structure, next(outcomes), number, part):
                    lost.add(structure)

        self.driver.drive(draws, body, Phase.generate)

    def judge(
        self, case: Case, structure: Structure, outcome: Outcome, number: int, part: Part
    ) -> bool:
        """Judge a case by every clause, and count it; tell whether it cost the process."""
        if self.stop():
            return False
        part.cases += 1
        for clause, rulings in _by_clause(rule(case, outcome, self.wanted)).items():
            part.tally(clause).add(rulings, case, structure, number)
        return outcome.ruined or any(step.lost for step in outcome.steps)

    def shrink(self, clause: str, structure: Structure) -> Shrunk | None:
        """Look for a plainer stratum that breaks a clause, and let Hypothesis shrink the case.

        Parameters
        ----------
        clause : str
        structure : Structure
            The stratum of a case that breaks it.

        Returns
        -------
        Shrunk or None
            None where it was given up.
        """
        found: list[Broken] = []
        patience = _Patience(self.runner)
        examples = 2 * max(self._strata[1], default=1)

        def breaks(other: Structure, number: int, *phases: Phase) -> bool:
            if not fits(other, self.backend, self.options.profile):
                return False
            draws = Draws((other,), examples, number)
            return self._breaks(clause, draws, phases, found, patience)

        if not self.backend.compiled:
            structure = plainer(structure, lambda other: breaks(other, 0, Phase.generate))
        repeats = any(breaks(structure, k, Phase.generate, Phase.shrink) for k in (0, 1))
        if self.stop():
            return None
        return Shrunk(found[0] if found else None, "" if repeats else f"{clause}: {NOT_REPEATED}")

    def _breaks(
        self,
        clause: str,
        draws: Draws,
        phases: tuple[Phase, ...],
        found: list[Broken],
        patience: _Patience,
    ) -> bool:
        """Tell whether a stratum breaks a clause, and keep the smallest case that does."""
        alone = frozenset({clause})

        def body(batch: Batch) -> None:
            if self.stop() or patience.is_over:
                return
            for case, structure in batch:
                outcome = self.observe(case, structure)
                patience.ruined += outcome.ruined
                for ruling in rule(case, outcome, alone):
                    if ruling.finding is not None and not ruling.finding.refused:
                        if not found or case.cost < (found[0].cost or 0):
                            found[:] = [Broken(ruling.finding, case, structure)]
                        raise ClauseBrokenError(clause)

        try:
            self.driver.drive(draws, body, *phases)
        except ClauseBrokenError:
            return True
        except FlakyFailure:
            return False
        return False

    def observe(self, case: Case, structure: Structure) -> Outcome:
        """Run a case."""
        return self.runner.observe(case, parallel=structure.size in PARALLEL)


class _Patience:
    """How many processes may be spent on shrinking a case."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._crashes, self.ruined = runner, runner.losses[0], 0

    @property
    def is_over(self) -> bool:
        """Whether that is enough."""
        return self._runner.losses[0] - self._crashes + self.ruined > MOST_CRASHES


def _by_clause(rulings: Iterable[Ruling]) -> dict[str, list[Ruling]]:
    by_clause: dict[str, list[Ruling]] = {}
    for ruling in rulings:
        by_clause.setdefault(ruling.clause, []).append(ruling)
    return by_clause


def _shares(wished: list[int], most: int | None) -> list[int]:
    """Share the cases out among the strata; the first ones get theirs where `most` is small."""
    if most is None or not wished:
        return wished
    each, rest = divmod(most, len(wished))
    return [share for share in (each + (k < rest) for k in range(len(wished))) if share]
