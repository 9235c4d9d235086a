"""The list of planted bugs: which target breaks which clause, and the story behind it."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from embconform.mutants.kernel import Kernel
from embconform.reference.clause import Profile, registry


@dataclass(frozen=True)
class Planted:
    """A wrong embedding.

    Attributes
    ----------
    name : str
        Unique among the planted bugs of its profile.
    target : callable
        A function, a callable instance or a module class.
    clause : str
        Id of the clause that must catch it.
    profile : str
        The profile under which it is judged.
    story : str
        One line on the bug.
    module : str
        Where it is defined.
    device : str
        Where it is wrong; one that is not so on the CPU is run only where its device is.
    """

    name: str
    target: Callable[..., Any]
    clause: str
    profile: str
    story: str
    module: str
    device: str = "cpu"

    @property
    def where(self) -> str:
        """``package.module:attr``, as a command line names it."""
        return f"{self.module}:{self.name}"


PLANTED: list[Planted] = []


def planted(clause: str, *, profile: str = "torch", device: str = "cpu") -> Callable[[Any], Any]:
    """Record the decorated target as a planted bug.

    A subclass of Kernel, which is callable only once it is made, is replaced by an instance, and a
    function that returns a Backend by the Backend.
    """
    known = registry().get(clause)
    if known is None or Profile(profile) not in known.profiles:
        raise ValueError(f"profile {profile!r} has no clause {clause!r}")

    def record(made: Any) -> Any:
        name = made.__name__
        if any((other.name, other.profile) == (name, profile) for other in PLANTED):
            raise ValueError(f"two planted bugs of profile {profile!r} are called {name!r}")
        story = (inspect.getdoc(made) or "").partition("\n")[0]
        if not story or story == (inspect.getdoc(Kernel) or "").partition("\n")[0]:
            raise ValueError(f"{name} tells no story")
        target = made() if _is_maker(made) else made
        PLANTED.append(Planted(name, target, clause, profile, story, made.__module__, device))
        return target

    return record


def _is_maker(made: Any) -> bool:
    """Tell whether the target is what the decorated object makes: a kernel, or a Backend."""
    if isinstance(made, type):
        return issubclass(made, Kernel)
    return getattr(made, "__annotations__", {}).get("return") == "Backend"


@cache
def by_name() -> dict[tuple[str, str], Planted]:
    """Give every planted bug by its name and profile."""
    return {(bug.name, bug.profile): bug for bug in all_planted()}


def all_planted(device: str = "cpu") -> list[Planted]:
    """Import every module of mutants and list a device's bugs, by module and in their order."""
    from embconform import mutants

    for module in sorted(entry.name for entry in pkgutil.iter_modules(mutants.__path__)):
        import_module(f"embconform.mutants.{module}")
    return [bug for bug in PLANTED if bug.device == device]
