"""From what a run has counted to its report."""

from __future__ import annotations

from dataclasses import dataclass, replace

from embconform.backends.backend import Described
from embconform.backends.constants import own_sizes
from embconform.conformance.options import BUDGETS, RunOptions
from embconform.conformance.probes.registry import probes
from embconform.conformance.report import ClauseResult, Failure, Report, Status
from embconform.conformance.repro import script, snippet
from embconform.conformance.running.part import MOST_SHRUNK, Part
from embconform.conformance.running.tally import Smallest, Tally, Told
from embconform.reference.clause import Clause, select


@dataclass(frozen=True)
class Found:
    """All that a report is made of.

    Attributes
    ----------
    options : RunOptions
    name : str
        The backend's.
    able : frozenset of str
        What the backend can do.
    described : Described or None
        The backend; None where only reports of it are at hand.
    environment : dict of str to str
    part : Part
    units : int
        Units of work in the whole run.
    fingerprint : str
        Of that work.
    shard, of : int
    ended : str
        Why the run ended before its time; empty where it did not.
    interrupted : bool
    seconds : float
    tampered : tuple of str
    replay : str
        The command line that repeats the whole run.
    rounds : int or None
        How often all of the work was done, each time with the next seed; None for a plain run.
    """

    options: RunOptions
    name: str
    able: frozenset[str]
    described: Described | None
    environment: dict[str, str]
    part: Part
    units: int
    fingerprint: str
    shard: int = 1
    of: int = 1
    ended: str = ""
    interrupted: bool = False
    seconds: float = 0.0
    tampered: tuple[str, ...] = ()
    replay: str = ""
    rounds: int | None = None

    @property
    def mine(self) -> range:
        """The numbers of the units of work that this shard has."""
        return range(self.shard - 1, self.units, self.of)

    @property
    def is_part(self) -> bool:
        """Whether something is left for others, or for later."""
        if self.rounds is not None:
            return False
        undone = not self.part.done.issuperset(self.mine)
        return self.of > 1 or undone or self.interrupted  # also one that was cut while it shrank


def report(found: Found, target: str) -> Report:
    """Write down what a run found.

    Parameters
    ----------
    found : Found
    target : str
        As the user named it.

    Returns
    -------
    Report
    """
    options, part = found.options, found.part
    clauses = select(options.profile, options.select, options.device)
    declared = {row.clause for row in options.deviations}
    shrunk = part.to_shrink(clauses, declared, 1 if options.fail_fast else MOST_SHRUNK)
    made = [part.tallies[clause].shrunk for clause in shrunk]
    return Report(
        target=target,
        profile=options.profile,
        device=options.device,
        seed=options.seed,
        budget=options.budget,
        clauses=tuple(_result(clause, found, target, clause.id in shrunk) for clause in clauses),
        cases=part.cases,
        seconds=found.seconds,
        environment=found.environment,
        notes=(
            *_interpreter_note(found.environment),
            *_rounds_note(found),
            *_replays_note(part),
            *_constants_note(found),
            *(each.note for each in made if each and each.note),
        ),
        strict=options.strict,
        interrupted=found.interrupted,
        part=found if found.is_part else None,
        able=found.able,
    )


def _interpreter_note(environment: dict[str, str]) -> tuple[str, ...]:
    """Say that what ran is not what users run."""
    if "interpreter" not in environment:
        return ()
    by = environment["interpreter"]
    return (f"the kernels were run by {by}: on a device they are untested by this report",)


def _rounds_note(found: Found) -> tuple[str, ...]:
    """Tell how many rounds there were; no note for a plain run."""
    if found.rounds is None:
        return ()
    word, first = "round" if found.rounds == 1 else "rounds", found.options.seed
    seeds = f", seeds {first} to {first + found.rounds - 1}" if found.rounds else ""
    end = "" if found.ended or found.interrupted else ", then the time was over"
    return (f"{found.rounds} whole {word}{seeds}{end}",)


def _replays_note(part: Part) -> tuple[str, ...]:
    """Tell what became of known failures; no note where there were none."""
    if not part.replayed:
        return ()
    still = part.replayed - part.fixed
    dropped = f", {part.fixed} no longer and are forgotten" if part.fixed else ""
    return (f"of {part.replayed} known failures, replayed first, {still} still fail{dropped}",)


def _constants_note(found: Found) -> tuple[str, ...]:
    """Tell which sizes a target has cases of that others have not; no note where there are none."""
    if found.described is None:
        return ()
    own = own_sizes(found.described, BUDGETS[found.options.budget].constants)
    if not own:
        return ()
    numbers = ", ".join(f"{number:,}" for number in own)
    return (f"sizes were drawn near to whole numbers in its own code, too: {numbers}",)


def printed_note(total_bytes: int, head: str) -> tuple[str, ...]:
    """Tell what the target printed, in a note; no note where it was nothing."""
    if not total_bytes:
        return ()
    first = head.strip().partition("\n")[0][:80]
    began = f", beginning with: {first}" if first else ""
    return (f"the target printed {total_bytes:,} bytes, which are not shown{began}",)


def _result(clause: Clause, found: Found, target: str, shrunk: bool) -> ClauseResult:
    tally = found.part.tallies.get(clause.id, Tally())
    deviations = {row.clause: row for row in found.options.deviations}
    plain = ClauseResult(
        clause,
        Status.PASS,
        exercised=tally.exercised,
        failed=tally.failed,
        seconds=tally.seconds,
        deviation=deviations.get(clause.id),
    )
    if tally.failed:
        shown, device = tally.shown(shrunk=shrunk), found.options.device
        failure = failure_of(clause, shown, found.described, target, device)
        status = Status.DEVIATION if plain.deviation else tally.status
        return replace(plain, status=status, failure=failure, detail=failure.message)
    if not tally.exercised:
        return _unexercised(plain, found)
    refusal = tally.refusal[1] if tally.refusal else ""
    if tally.refused == tally.exercised:
        return replace(plain, status=Status.UNSUPPORTED, detail=f"refused: {refusal}")
    if plain.deviation is not None:
        detail = "declared as a deviation, but no case broke it"
        return replace(plain, status=Status.UNEXPECTED_PASS, detail=detail)
    partly = f"{tally.refused} cases refused: {refusal}" if tally.refused else ""
    return replace(plain, detail=partly)


def _unexercised(plain: ClauseResult, found: Found) -> ClauseResult:
    """Say why no case exercised a clause."""
    missing = sorted(plain.clause.needs - found.able)
    if missing:
        detail = f"{found.name} has no {', '.join(missing)}"
        return replace(plain, status=Status.UNSUPPORTED, deviation=None, detail=detail)
    if _left_out(plain.clause, found.options.budget):
        detail = f"the {found.options.budget} budget leaves it out"
        return replace(plain, status=Status.UNTESTED, detail=detail, left_out=True)
    if found.of > 1 and not found.ended:
        detail = f"no case applied in shard {found.shard}/{found.of}"
        return replace(plain, status=Status.UNTESTED, detail=detail, left_out=True)
    return replace(plain, status=Status.UNTESTED, detail=found.ended or "no case applied")


def _left_out(clause: Clause, budget: str) -> bool:
    """Tell whether the clause has a probe, and none that runs in the budget."""
    budgets = [probe.budgets for probe in probes() if clause.id in probe.clauses]
    return bool(budgets) and not any(budget in names for names in budgets)


def failure_of(
    clause: Clause, broken: Smallest, backend: Described | None, target: str, device: str
) -> Failure:
    """Word a broken case, with code that shows it."""
    if isinstance(broken, Told):
        return broken.failure
    assert backend is not None
    finding, case = broken.finding, broken.case
    head = f"{clause.id}: {clause.sentence}"
    return Failure(
        message=finding.message,
        got=finding.got,
        exact=finding.exact,
        bound=finding.bound,
        ulp=finding.ulp,
        call="" if case is None else snippet(case, finding, device),
        script="" if case is None else script(case, finding, backend, target, head, device=device),
        indices=0 if case is None else case.most_indices,
        rows=0 if case is None else case.rows,
    )
