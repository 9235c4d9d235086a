"""Checks that are not a sequence of calls on one table: new modules, training on real text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from embconform.backends.backend import Backend, Described
from embconform.conformance.judging import Ruling
from embconform.reference.clause import Profile
from embconform.reference.skipgram import make_plan, oracle
from embconform.reference.text import python_documentation


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
    budgets : frozenset of str
        The budgets that it runs in.
    """

    name: str
    clauses: frozenset[str]
    needs: frozenset[str]
    run: Callable[[Backend, Profile, int, str], list[Ruling]]
    budgets: frozenset[str] = frozenset({"quick", "default", "thorough"})

    def judge(self, seen: Any, backend: Described, profile: Profile, seed: int) -> list[Ruling]:
        del backend, profile, seed
        return list(seen)

    def fits(self, backend: Described, wanted: frozenset[str]) -> bool:
        """Tell whether the probe can run and anybody wants to know."""
        return self.needs <= backend.able and bool(self.clauses & wanted)


@cache
def probes() -> tuple[Probe, ...]:
    """List the probes."""
    from embconform.conformance.modules import MODULE_PROBE
    from embconform.conformance.optimisers import OPTIMISER_PROBE
    from embconform.conformance.tables import TABLE_PROBES
    from embconform.conformance.threads import THREAD_PROBE
    from embconform.conformance.transforms import TRANSFORM_PROBES
    from embconform.conformance.transforms_programs import PROGRAM_PROBES

    return (
        THREAD_PROBE,
        *TABLE_PROBES,
        MODULE_PROBE,
        Probe("training", _TRAINING, frozenset({"gradient"}), _train),
        OPTIMISER_PROBE,
        *TRANSFORM_PROBES,
        *PROGRAM_PROBES,
    )


_TRAINING = frozenset({"training.skip-gram", "training.padding-row-unmoved", "training.loss-falls"})


def _train(backend: Backend, profile: Profile, seed: int, device: str) -> list[Ruling]:
    """Train on Python's documentation and compare with the oracle."""
    from embconform.conformance.training import judge_training, observe_training

    if "float32" not in backend.capabilities.dtypes:
        return []
    padding = "padding_idx" in backend.capabilities.options
    plan = make_plan(python_documentation(), seed, padding=padding)
    seen = observe_training(backend, plan, device)
    found = judge_training(plan, oracle(plan, profile), seen)
    return [Ruling(clause, finding) for clause, finding in found.items()]


def probe_named(name: str) -> Probe:
    """Find a probe by its name."""
    return next(probe for probe in probes() if probe.name == name)
