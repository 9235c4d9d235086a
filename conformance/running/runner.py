"""Who runs cases and probes on a target: this process, or one of the target's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from embconform.backends.backend import Description
from embconform.conformance.cases.case import Case
from embconform.conformance.outcome import Lost, Outcome
from embconform.reference.clause import Profile


class Runner(Protocol):
    """Runs cases and probes on one target."""

    @property
    def description(self) -> Description:
        """What is known of the target."""

    @property
    def environment(self) -> dict[str, str]:
        """Where it runs."""

    def observe(self, case: Case, *, parallel: bool) -> Outcome:
        """Run a case; `parallel` lets kernels use more threads than one."""

    def observe_all(self, cases: Sequence[tuple[Case, bool]]) -> Iterator[Outcome]:
        """Run cases, each given with its `parallel`; some may be done before they are asked for."""

    def probe(self, name: str, profile: Profile, seed: int) -> Any | Lost:
        """Run a probe's observation."""

    def renew(self) -> None:
        """Go on in a new process of the target's own, where it has one."""

    @property
    def losses(self) -> tuple[int, int]:
        """How often the target crashed, and how often it was late."""
