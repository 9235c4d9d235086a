"""Run a target in this process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from embconform.backends.backend import Backend
from embconform.conformance.case import Case
from embconform.conformance.observe import observe
from embconform.conformance.outcome import Outcome
from embconform.reference.clause import Profile


class InProcess:
    """Runs the target in this process.

    Parameters
    ----------
    backend : Backend
    device : str
        ``cpu`` or ``cuda``.
    """

    losses = (0, 0)

    def __init__(self, backend: Backend, device: str = "cpu") -> None:
        self.backend, self.device = backend, device
        self.description = backend.describe()

    @property
    def environment(self) -> dict[str, str]:
        """Where it runs."""
        from embconform.conformance.environment import environment

        return environment(self.device)

    def prepare(self) -> None:
        """Let the backend get ready."""
        if self.backend.prepare:
            self.backend.prepare()

    def observe(self, case: Case, *, parallel: bool) -> Outcome:
        """Run a case."""
        with _threads(self.backend.threads, parallel=parallel), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return observe(self.backend, case, self.device)

    def probe(self, name: str, profile: Profile, seed: int) -> Any:
        """Run a probe's observation."""
        from embconform.conformance.probes import probe_named

        with _threads(self.backend.threads, parallel=False):
            return probe_named(name).observe(self.backend, profile, seed, self.device)


@contextmanager
def _threads(most: int | None, *, parallel: bool) -> Iterator[None]:
    """Pin torch to one thread, but where thousands of indices may make a kernel go parallel."""
    before = torch.get_num_threads()
    torch.set_num_threads((most or before) if parallel else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
