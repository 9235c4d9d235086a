"""Checks that are not a sequence of calls on one table: new modules, training on real text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from embconform.backends.backend import Backend
from embconform.conformance.judging import Ruling
from embconform.reference.clause import Profile


@dataclass(frozen=True)
class Probe:
    """A check that runs the backend by itself and rules on several clauses.

    Attributes
    ----------
    name : str
    clauses : frozenset of str
        Clause ids that it can rule on.
    needs : frozenset of str
        Capabilities without which it can't run.
    run : callable
        ``run(backend, profile, seed, device)`` returns the rulings.
    """

    name: str
    clauses: frozenset[str]
    needs: frozenset[str]
    run: Callable[[Backend, Profile, int, str], list[Ruling]]

    def fits(self, backend: Backend, wanted: frozenset[str]) -> bool:
        """Tell whether the probe can run and anybody wants to know."""
        return self.needs <= backend.able and bool(self.clauses & wanted)


@cache
def probes() -> tuple[Probe, ...]:
    """List the probes."""
    from embconform.conformance.modules import MODULE_PROBE

    return (MODULE_PROBE,)
