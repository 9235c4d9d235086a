"""From what a run has counted to its report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from embconform.backends.backend import Described
from embconform.conformance.probes import probes
from embconform.conformance.report import ClauseResult, Failure, Report, Status
from embconform.conformance.repro import script, snippet
from embconform.conformance.tally import Broken
from embconform.reference.clause import Clause

if TYPE_CHECKING:
    from embconform.conformance.engine import Engine


def report(engine: Engine, target: str, seconds: float) -> Report:
    """Write down what an engine found.

    Parameters
    ----------
    engine : Engine
    target : str
        As the user named it.
    seconds : float
        Wall time of the run.

    Returns
    -------
    Report
    """
    options = engine.options
    return Report(
        target=target,
        profile=options.profile,
        device=options.device,
        seed=options.seed,
        budget=options.budget,
        clauses=tuple(_result(clause, engine, target) for clause in engine.clauses),
        cases=engine.cases,
        seconds=seconds,
        environment=engine.runner.environment,
        notes=tuple(engine.notes),
        strict=options.strict,
        interrupted=engine.interrupted,
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
        status = Status.DEVIATION if plain.deviation else tally.status
        return replace(plain, status=status, failure=failure, detail=failure.message)
    if not tally.exercised:
        missing = sorted(clause.needs - engine.backend.able)
        if missing:
            detail = f"{engine.backend.name} has no {', '.join(missing)}"
            return replace(plain, status=Status.UNSUPPORTED, deviation=None, detail=detail)
        if _left_out(clause, engine.options.budget):
            detail = f"the {engine.options.budget} budget leaves it out"
            return replace(plain, status=Status.UNTESTED, detail=detail, left_out=True)
        return replace(plain, status=Status.UNTESTED, detail=engine.ended or "no case applied")
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


def _failure(clause: Clause, broken: Broken, backend: Described, target: str) -> Failure:
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
