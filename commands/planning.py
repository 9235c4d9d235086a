"""From a target's name to something that can be run as the user wishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from embconform.backends.backend import Backend, Description, TargetError
from embconform.backends.deviations import Deviation, active, load
from embconform.backends.devices import check_device
from embconform.commands.request import Request
from embconform.conformance.quiet import captured_output
from embconform.reference.clause import Profile, registry, select

if TYPE_CHECKING:
    from embconform.conformance.isolation.isolated import Isolated
    from embconform.conformance.isolation.limits import Limits


@dataclass(frozen=True)
class Plan:
    """A target that can be run.

    Attributes
    ----------
    target : str
        As the user named it.
    subject : Backend or Isolated
    profile : Profile
    device : str
    deviations : tuple of Deviation
    printed : int
        Bytes that it has printed so far.
    """

    target: str
    subject: Backend | Isolated
    profile: Profile
    device: str
    deviations: tuple[Deviation, ...]
    printed: int = 0

    def rest(self) -> None:
        """End the process that it has, until it is needed."""
        if not isinstance(self.subject, Backend):
            self.subject.rest()


def plan(
    target: str, request: Request, own_rows: tuple[Deviation, ...], stop: Callable[[], bool]
) -> Plan:
    """Import a target and see that it can serve the request.

    Parameters
    ----------
    target : str
    request : Request
    own_rows : tuple of Deviation
        The user's; they go before the backend's own for the same clause.
    stop : callable
        Whether somebody wants to stop.

    Returns
    -------
    Plan

    Raises
    ------
    TargetError
        If the target can't be used, or not for this.
    click.UsageError
        If no clause is selected.
    """
    subject, backend, printed = _found(target, request, stop)
    try:
        if isinstance(subject, Backend):
            device = request.device or subject.capabilities.own_device
            check_device(target, subject.capabilities, device)
        else:
            device = subject.device
        profile, rows = _fitted(target, backend, request, own_rows, device)
    except BaseException:
        if not isinstance(subject, Backend):
            subject.close()
        raise
    return Plan(target, subject, profile, device, rows, printed)


def plan_all(
    targets: tuple[str, ...],
    request: Request,
    own_rows: tuple[Deviation, ...],
    stop: Callable[[], bool],
) -> list[Plan]:
    """See that every target can be used before any is judged.

    Parameters
    ----------
    targets : tuple of str
        One that comes twice counts once.
    request, own_rows, stop
        As in :func:`plan`.

    Returns
    -------
    list of Plan

    Raises
    ------
    TargetError or click.UsageError
        On the first that can't.
    """
    plans: list[Plan] = []
    for target in dict.fromkeys(targets):
        for earlier in plans:
            earlier.rest()  # one process at a time
        plans.append(plan(target, request, own_rows, stop))
    return plans


def _fitted(
    target: str,
    backend: Backend | Description,
    request: Request,
    own_rows: tuple[Deviation, ...],
    device: str,
) -> tuple[Profile, tuple[Deviation, ...]]:
    """Choose the profile and the deviations, or say why the target can't serve the request."""
    profile = request.profile or backend.profiles[0]
    if profile not in backend.profiles:
        serves = " and ".join(backend.profiles)
        raise TargetError(
            f"{target} serves the {serves} profile, not {profile.value}; leave --profile out or "
            f"name {backend.profiles[0].value}"
        )
    check_selection(request.select, profile, device)
    theirs = load(backend.deviations) if backend.deviations else ()
    mine = {row.clause for row in active(own_rows)}
    rows = active((*own_rows, *(row for row in theirs if row.clause not in mine)))
    return profile, rows


def _found(
    target: str, request: Request, stop: Callable[[], bool]
) -> tuple[Backend | Isolated, Backend | Description, int]:
    """Import a target in the process that it is to run in."""
    if request.isolation == "process":
        from embconform.conformance.isolation.isolated import Isolated
        from embconform.conformance.running.crew import let_helpers_get_ready
        from embconform.conformance.running.readiness import get_ready

        isolated = Isolated(target, request.device, limits_of(request), stop)
        get_ready()
        let_helpers_get_ready()
        return isolated, isolated.description, 0
    from embconform.backends.targets import resolve

    with captured_output() as captured:
        backend = resolve(target)
    return backend, backend, captured.total_bytes


def limits_of(request: Request) -> Limits:
    """Give what each process of a target may use; helpers share what memory is free."""
    from embconform.conformance.isolation.limits import GIB, Limits

    memory = None if request.memory is None else int(request.memory * GIB)
    if memory is None and request.helpers:
        memory = Limits().memory_bytes() // (request.helpers + 1)
    return Limits(case=request.case_timeout, memory=memory)


def check_selection(pattern: str, profile: Profile, device: str | None = None) -> None:
    """Refuse a pattern that no clause matches.

    Parameters
    ----------
    pattern : str
    profile : Profile
    device : str, optional
        Where the run is to be.

    Raises
    ------
    click.UsageError
    """
    check_pattern(pattern)
    if select(profile, pattern, device):
        return
    if select(profile, pattern):
        raise click.UsageError(f"--select {pattern!r} matches no clause that speaks of {device}")
    said = f"--select {pattern!r} matches no clause of the {profile.value} profile"
    other = next(other for other in Profile if other is not profile)
    raise click.UsageError(f"{said}; it matches some of the {other.value} profile")


def check_pattern(pattern: str) -> None:
    """Refuse a list of patterns one of which matches no clause of any profile.

    Parameters
    ----------
    pattern : str

    Raises
    ------
    click.UsageError
    """
    from difflib import get_close_matches

    for part in pattern.split(","):
        if any(select(profile, part) for profile in Profile):
            continue
        close = get_close_matches(part, list(registry()), n=1)
        if part in {clause.group for clause in registry().values()}:
            close = [f"{part}.*"]
        hint = f", did you mean {close[0]!r}?" if close else " (see: embconform clauses)"
        raise click.UsageError(f"--select {part!r} matches no clause{hint}")
