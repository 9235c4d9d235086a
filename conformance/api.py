"""The checks as functions, for a user's own test file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hypothesis import configuration

from embconform.backends.adapt import as_backend
from embconform.backends.backend import Backend, Description, TargetError
from embconform.backends.deviations import active, load
from embconform.backends.devices import check_device
from embconform.backends.targets import resolve
from embconform.conformance.isolation.isolated import Isolated
from embconform.conformance.options import BUDGETS, RunOptions
from embconform.conformance.render.text import failure_text
from embconform.conformance.report import BROKEN, ClauseResult, Report, Status
from embconform.conformance.running.engine import run
from embconform.reference.clause import Clause, Profile, select

if TYPE_CHECKING:
    import pytest

Target = str | Backend | Callable[..., Any]


class NonconformantError(AssertionError):
    """A backend breaks clauses that count; `report` holds everything that was found."""

    def __init__(self, report: Report) -> None:
        self.report = report
        broken = [result for result in report.clauses if report.counts_against(result)]
        texts = [failure_text(result) for result in broken]
        super().__init__("\n\n".join([f"{report.target} is not conformant", *texts]))

    def __reduce__(self) -> tuple[type[NonconformantError], tuple[Report]]:
        """Survive the way from a process of pytest-xdist or multiprocessing."""
        return type(self), (self.report,)


@dataclass
class Plan:
    """A target that can be run, and what became of it."""

    name: str
    subject: Backend | Isolated
    options: RunOptions
    _made: Report | BaseException | None = field(default=None, repr=False)

    @property
    def clauses(self) -> list[Clause]:
        """The clauses that are judged."""
        return select(self.options.profile, self.options.select, self.options.device)

    @property
    def report(self) -> Report:
        """What was found; the target is run when this is first read, and not again."""
        if self._made is None:
            try:
                with _scratch(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the verdict is the same under -W error
                    self._made = _ran(self.name, self.subject, self.options)
            except SystemExit as error:
                self._made = TargetError(f"{self.name} left the process: exit({error.code})")
            except Exception as error:
                self._made = error
        if isinstance(self._made, BaseException):
            raise self._made
        return self._made

    def end_test(self, clause: str) -> None:
        """End a test as a clause's result says: pass, fail, skip with the reason, or xfail."""
        import pytest

        try:
            report = self.report
        except TargetError as error:
            pytest.fail(str(error), pytrace=False)
        (result,) = (result for result in report.clauses if result.clause.id == clause)
        _end_test(result, counts=report.counts_against(result))

    def marks(self, clause: str) -> list[pytest.MarkDecorator]:
        """Mark a clause's test where a deviation is declared, so that a pass is an XPASS."""
        import pytest

        return [
            pytest.mark.xfail(
                reason=f"known deviation: {row.reason} ({row.link})",
                raises=pytest.xfail.Exception,
                strict=self.options.strict,
            )
            for row in self.options.deviations
            if row.clause == clause
        ]


def plan(
    target: Target,
    *,
    profile: str | None,
    budget: str,
    seed: int,
    device: str | None,
    select: str,
    deviations: str | Path | None,
    strict: bool,
    isolation: str,
) -> Plan:
    """See that a target can be run as is wished; arguments as :func:`check_backend` takes.

    Raises
    ------
    TargetError
        If it can't; the message is one line.
    """
    if isolation not in ("process", "none"):
        raise TargetError(f"no isolation {isolation!r}; there are process and none")
    name, subject = _found(target, isolation, device)
    backend = subject if isinstance(subject, Backend) else subject.description
    chosen = _profile(name, backend, profile)
    if budget not in BUDGETS:
        raise TargetError(f"no budget {budget!r}; there are {', '.join(BUDGETS)}")
    if not _is_seed(seed):
        raise TargetError(f"the seed must be a whole number from 0 to 2**63 - 1, not {seed!r}")
    if isinstance(subject, Backend):
        device = device or subject.capabilities.own_device
        check_device(name, subject.capabilities, device)
    else:
        device = subject.device
    files = [Path(deviations)] if deviations else []
    files += [backend.deviations] if backend.deviations else []
    rows = {row.clause: row for file in reversed(files) for row in active(load(file))}
    options = RunOptions(
        profile=chosen,
        budget=budget,
        seed=seed,
        device=device,
        select=select,
        deviations=tuple(rows.values()),
        strict=strict,
    )
    made = Plan(name, subject, options)
    if not made.clauses:
        raise TargetError(f"{select!r} matches no clause of the {chosen.value} profile on {device}")
    return made


def check_backend(
    target: Target,
    *,
    profile: str | None = None,
    budget: str = "quick",
    seed: int = 0,
    device: str | None = None,
    select: str = "*",
    deviations: str | Path | None = None,
    strict: bool = False,
    isolation: str = "process",
) -> Report:
    """Validate an embedding, as :command:`embconform validate` does.

    Parameters
    ----------
    target : str, callable, class or Backend
        A name or path as on the command line, a function like
        :func:`torch.nn.functional.embedding`, a class like :class:`torch.nn.Embedding`, or a
        Backend.
    profile : str, optional
        ``torch`` or ``textbook``; the backend's own by default.
    budget : str
        ``quick``, ``default`` or ``thorough``.
    seed : int
        Draws the cases.
    device : str, optional
        ``cpu`` or ``cuda``; by default the CPU, or what the target is for.
    select : str
        Shell patterns of clause ids, joined by commas.
    deviations : str or Path, optional
        TOML file of known deviations, or the name of a built-in backend to share those of, in
        addition to the backend's own.
    strict : bool
        Let SHOULD clauses and unexpected passes count.
    isolation : str
        ``process`` runs a target that is given by its name in a process of its own, so that it can
        crash or hang; ``none`` runs it here, as every other target is.

    Returns
    -------
    Report

    Raises
    ------
    NonconformantError
        If a clause that counts is broken or untested; the message shows each.
    TargetError
        If the target or an argument can't be used.

    Examples
    --------
    >>> from torch.nn.functional import embedding
    >>> check_backend(embedding, select="lookup.*").verdict
    'conformant'
    """
    report = plan(
        target,
        profile=profile,
        budget=budget,
        seed=seed,
        device=device,
        select=select,
        deviations=deviations,
        strict=strict,
        isolation=isolation,
    ).report
    if not report.conformant:
        raise NonconformantError(report)
    return report


class ClauseCheck:
    """One clause's check of one target; called in a test, it passes, fails, skips or xfails."""

    def __init__(self, clause: Clause, planned: Plan) -> None:
        self.clause, self._plan = clause, planned

    def __call__(self) -> None:
        """Run the target if this is its first clause, and end the test as the clause says."""
        __tracebackhide__ = True
        self._plan.end_test(self.clause.id)

    def __repr__(self) -> str:
        return f"<check of {self.clause.id}>"


def parametrize_with_clauses(
    targets: Iterable[Target],
    *,
    profile: str | None = None,
    budget: str = "quick",
    seed: int = 0,
    device: str | None = None,
    select: str = "*",
    deviations: str | Path | None = None,
    strict: bool = False,
    isolation: str = "process",
) -> pytest.MarkDecorator:
    """Parametrise a test with every clause of every target, after scikit-learn's checks.

    Each target is run once, when its first test runs.

    Parameters
    ----------
    targets : iterable of str, callable, class or Backend
    profile, budget, seed, device, select, deviations, strict, isolation
        As :func:`check_backend` takes.

    Returns
    -------
    pytest.MarkDecorator
        The test takes one argument, `check`, and calls it.

    Raises
    ------
    TargetError
        If a target or an argument can't be used.

    Examples
    --------
    ::

        @parametrize_with_clauses([my_embedding, "eager"])
        def test_clause(check):
            check()
    """
    import pytest

    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise TargetError("parametrize_with_clauses takes a list of targets: put the one into [ ]")
    make = partial(
        plan,
        profile=profile,
        budget=budget,
        seed=seed,
        device=device,
        select=select,
        deviations=deviations,
        strict=strict,
        isolation=isolation,
    )
    parameters = [
        pytest.param(
            ClauseCheck(clause, planned),
            id=f"{planned.name}-{clause.id}",
            marks=planned.marks(clause.id),
        )
        for planned in map(make, targets)
        for clause in planned.clauses
    ]
    if not parameters:
        raise TargetError("parametrize_with_clauses got no target")
    return pytest.mark.parametrize("check", parameters)


def _end_test(result: ClauseResult, *, counts: bool) -> None:
    """Pass, fail, skip or xfail; under ``--runxfail``, pytest.xfail returns."""
    import pytest

    if result.status is Status.DEVIATION and result.deviation:
        pytest.xfail(f"known deviation: {result.deviation.reason} ({result.deviation.link})")
    if result.status in BROKEN and not counts:
        pytest.xfail(f"{result.clause.level.value}: {result.detail}")
    if counts or result.failure:
        pytest.fail(failure_text(result), pytrace=False)
    if result.status in (Status.UNSUPPORTED, Status.UNTESTED):
        pytest.skip(f"{result.status.value}: {result.detail}")


def _found(target: Target, isolation: str, device: str | None) -> tuple[str, Backend | Isolated]:
    """Name a target and make something of it that can be run."""
    if isinstance(target, str):
        if isolation == "none":
            return target, resolve(target)
        isolated = Isolated(target, device)
        isolated.rest()
        return target, isolated
    if isinstance(target, Backend):
        return target.name, as_backend(target.name, target)
    home = target if hasattr(target, "__qualname__") else type(target)
    name = f"{home.__module__}:{home.__qualname__}" if home.__module__ else home.__qualname__
    return name, as_backend(name, target)


def _ran(name: str, subject: Backend | Isolated, options: RunOptions) -> Report:
    if isinstance(subject, Backend):
        return run(subject, options, target=name)
    with subject:
        report = run(subject, options, target=name)
        return replace(report, tampered=subject.finish())


def _profile(name: str, backend: Backend | Description, wanted: str | None) -> Profile:
    """Choose the profile, or raise a TargetError for one that the backend doesn't serve."""
    if wanted is None:
        return backend.profiles[0]
    if wanted not in [profile.value for profile in backend.profiles]:
        serves = " and ".join(backend.profiles)
        raise TargetError(f"{name} serves the {serves} profile, not {wanted}")
    return Profile(wanted)


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


@contextmanager
def _scratch() -> Iterator[None]:
    """Keep Hypothesis's own files out of the folder that the user stands in."""
    before = configuration.storage_directory(intent_to_write=False).path
    with TemporaryDirectory(prefix="embconform-") as folder:
        configuration.set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            configuration.set_hypothesis_home_dir(before)
