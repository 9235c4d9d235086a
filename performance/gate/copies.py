"""Targets of another copy of embconform: for the gate on embconform's own repository."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any

from embconform.backends.backend import Backend, Capabilities, TargetError
from embconform.reference.clause import Profile

_TARGETS = "embconform.backends.targets"


def resolve_there(target: str) -> Backend:
    """Let the copy of embconform that is in force find a target, and make it one of this copy's.

    Parameters
    ----------
    target : str
        A name counts as in that copy's catalogue.

    Returns
    -------
    Backend
        With the functions of the other copy.

    Raises
    ------
    TargetError
    """
    try:
        found = import_module(_TARGETS).resolve(target)
    except Exception as error:  # the other copy's TargetError is none of this copy's
        raise TargetError(str(error)) from error
    given = _common(found, Backend)
    given["profiles"] = tuple(Profile(str(profile)) for profile in found.profiles)
    given["capabilities"] = Capabilities(**_common(found.capabilities, Capabilities))
    return Backend(**given)


def _common(found: Any, cls: type[Any]) -> dict[str, Any]:
    """Take the fields that both copies know."""
    return {f.name: getattr(found, f.name) for f in fields(cls) if hasattr(found, f.name)}
