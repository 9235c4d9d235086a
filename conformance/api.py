"""The checks as functions, for a user's own test file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embconform.backends.adapt import as_backend
from embconform.backends.backend import Backend, TargetError
from embconform.backends.deviations import active, load
from embconform.backends.targets import resolve
from embconform.conformance.engine import BUDGETS, RunOptions, run
from embconform.conformance.render.text import failure_text
from embconform.conformance.report import BROKEN, ClauseResult, Report, Status
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


def check_backend(
    target: Target,
    *,
    profile: str | None = None,
    budget: str = "quick",
    seed: int = 0,
    device: str = "cpu",
    select: str = "*",
    deviations: str | Path | None = None,
    strict: bool = False,
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
    device : str
        ``cpu`` or ``cuda``.
    select : str
        Shell patterns of clause ids, joined by commas.
    deviations : str or Path, optional
        TOML file of known deviations, in addition to the backend's own.
    strict : bool
        Let SHOULD clauses and unexpected passes count.

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
    report = validated(
        target,
        profile=profile,
        budget=budget,
        seed=seed,
        device=device,
        pattern=select,
        deviations=deviations,
        strict=strict,
    )
    if not report.conformant:
        raise NonconformantError(report)
    return report


def validated(
    target: Target,
    *,
    profile: str | None,
    budget: str,
    seed: int,
    device: str,
    pattern: str,
    deviations: str | Path | None,
    strict: bool,
) -> Report:
    """Run a target and return its report, whatever the verdict; see :func:`check_backend`."""
    name, backend = found(target)
    chosen = profile_of(name, backend, profile)
    if budget not in BUDGETS:
        raise TargetError(f"no budget {budget!r}; there are {', '.join(BUDGETS)}")
    if not select(chosen, pattern):
        raise TargetError(f"{pattern!r} matches no clause of the {chosen.value} profile")
    files = [Path(deviations)] if deviations else []
    files += [backend.deviations] if backend.deviations else []
    rows = {row.clause: row for file in reversed(files) for row in active(load(file))}
    options = RunOptions(
        profile=chosen,
        budget=budget,
        seed=seed,
        device=device,
        select=pattern,
        deviations=tuple(rows.values()),
        strict=strict,
    )
    return run(backend, options, target=name)


def found(target: Target) -> tuple[str, Backend]:
    """Name a target and make a backend of it."""
    if isinstance(target, str):
        return target, resolve(target)
    if isinstance(target, Backend):
        return target.name, target
    home = target if hasattr(target, "__qualname__") else type(target)
    name = f"{home.__module__}:{home.__qualname__}"
    return name, as_backend(name, target)


def profile_of(name: str, backend: Backend, wanted: str | None) -> Profile:
    """Choose the profile, or raise a TargetError for one that the backend doesn't serve."""
    if wanted is None:
        return backend.profiles[0]
    if wanted not in [profile.value for profile in backend.profiles]:
        serves = " and ".join(backend.profiles)
        raise TargetError(f"{name} serves the {serves} profile, not {wanted}")
    return Profile(wanted)


def outcome(result: ClauseResult, report: Report) -> None:
    """End a test as a clause's result says: pass, fail, skip with the reason, or xfail."""
    import pytest

    if result.status in BROKEN and not report.counts_against(result):
        pytest.xfail(f"SHOULD: {result.detail}")
    if result.status in BROKEN or report.counts_against(result):
        pytest.fail(failure_text(result), pytrace=False)
    if result.status is Status.DEVIATION and result.deviation:
        pytest.xfail(f"known deviation: {result.deviation.reason} ({result.deviation.link})")
    if result.status in (Status.UNSUPPORTED, Status.UNTESTED):
        pytest.skip(f"{result.status.value}: {result.detail}")


class ClauseCheck:
    """One clause's check of one target; called in a test, it passes, fails, skips or xfails."""

    def __init__(self, clause: Clause, report: Callable[[], Report]) -> None:
        self.clause, self._report = clause, report

    def __call__(self) -> None:
        """Run the target if this is its first clause, and end the test as the clause says."""
        report = self._report()
        (result,) = (r for r in report.clauses if r.clause.id == self.clause.id)
        outcome(result, report)

    def __repr__(self) -> str:
        return f"<check of {self.clause.id}>"


def parametrize_with_clauses(
    targets: Iterable[Target],
    *,
    profile: str | None = None,
    budget: str = "quick",
    seed: int = 0,
    device: str = "cpu",
    select: str = "*",
    deviations: str | Path | None = None,
    strict: bool = False,
) -> pytest.MarkDecorator:
    """Parametrise a test with every clause of every target, after scikit-learn's checks.

    Each target is run once, when its first test runs.

    Parameters
    ----------
    targets : iterable of str, callable, class or Backend
    profile, budget, seed, device, select, deviations, strict
        As :func:`check_backend` takes.

    Returns
    -------
    pytest.MarkDecorator
        The test takes one argument, `check`, and calls it.

    Raises
    ------
    TargetError
        If a target can't be used.

    Examples
    --------
    ::

        @parametrize_with_clauses([my_embedding, "eager"])
        def test_clause(check):
            check()
    """
    import pytest

    parameters = []
    for target in targets:
        name, backend = found(target)
        arguments: dict[str, Any] = {
            "profile": profile,
            "budget": budget,
            "seed": seed,
            "device": device,
            "pattern": select,
            "deviations": deviations,
            "strict": strict,
        }
        report = _Once(lambda target=target, arguments=arguments: validated(target, **arguments))
        for clause in _clauses(profile_of(name, backend, profile), select):
            check = ClauseCheck(clause, report)
            parameters.append(pytest.param(check, id=f"{name}-{clause.id}"))
    return pytest.mark.parametrize("check", parameters)


def _clauses(profile: Profile, pattern: str) -> list[Clause]:
    return select(profile, pattern)


class _Once:
    """A report that is made at its first use."""

    def __init__(self, make: Callable[..., Report]) -> None:
        self._make: Callable[..., Report] = make
        self._report: Report | None = None

    def __call__(self) -> Report:
        if self._report is None:
            self._report = self._make()
        return self._report
