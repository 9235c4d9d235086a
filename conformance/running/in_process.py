"""Run a target in this process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from embconform.backends.backend import Backend, TargetError
from embconform.backends.catalogue import describe
from embconform.conformance.cases.case import Case
from embconform.conformance.observe import observe
from embconform.conformance.outcome import Outcome
from embconform.conformance.probes.torch_threads import torch_threads
from embconform.conformance.settling import Settling
from embconform.reference.clause import Profile


class InProcess:
    """Runs the target in this process.

    Parameters
    ----------
    backend : Backend
    device : str
        ``cpu`` or ``cuda``.

    Attributes
    ----------
    ruined : bool
        Whether the device was lost, after which nothing more can be run in this process.
    """

    losses = (0, 0)

    def __init__(self, backend: Backend, device: str = "cpu") -> None:
        self.backend, self.device = backend, device
        self.description = backend.describe()
        self.settle, self.ruined = Settling(backend, device), False

    @property
    def environment(self) -> dict[str, str]:
        """Where it runs."""
        from embconform.conformance.environment import environment

        found = environment(self.device)
        return found | ({"interpreter": by} if (by := self.backend.interpreter) else {})

    def prepare(self) -> None:
        """Let the device and the backend get ready."""
        if self.device == "cuda":
            # cuBLAS is deterministic, as some cases ask, where this is set before it is used
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            try:
                torch.zeros(1, device=self.device)
                torch.cuda.synchronize()
            except RuntimeError as error:
                reason = describe(error)
                raise TargetError(f"the CUDA device can't be used here: {reason}") from error
        if self.backend.prepare:
            self.backend.prepare()

    def observe(self, case: Case, *, parallel: bool) -> Outcome:
        """Run a case.

        Raises
        ------
        TargetError
            If an earlier one took the device along.
        """
        self._refuse_if_ruined()
        with _threads(self.backend.threads, parallel=parallel), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = observe(self.backend, case, self.device)
        self.ruined = outcome.ruined
        return outcome

    def observe_all(self, cases: Sequence[tuple[Case, bool]]) -> Iterator[Outcome]:
        """Run cases, each as it is asked for; as :meth:`observe`."""
        return (self.observe(case, parallel=parallel) for case, parallel in cases)

    def probe(self, name: str, profile: Profile, seed: int, skip: int = 0) -> Any:
        """Run a probe's observation, without the first `skip` trials where it is resumed.

        Raises
        ------
        TargetError
            As :meth:`observe`.
        """
        from embconform.conformance.probes.registry import probe_named

        self._refuse_if_ruined()
        resumed = {"skip": skip} if skip else {}
        with _threads(self.backend.threads, parallel=False):
            seen = probe_named(name).observe(self.backend, profile, seed, self.device, **resumed)
        self.ruined = self.settle.lost()
        return seen

    def renew(self) -> None:
        """Do nothing: there is this process only."""

    def _refuse_if_ruined(self) -> None:
        if self.ruined:
            raise TargetError(
                f"{self.backend.name} lost the context of its device in a call, as a device-side "
                "assert does, and nothing more can be run in this process: a target that is given "
                "by its name or path, without --isolation none, has processes of its own"
            )


def _threads(most: int | None, *, parallel: bool) -> AbstractContextManager[None]:
    """Pin torch to one thread, but where thousands of indices may make a kernel go parallel."""
    return torch_threads((most or torch.get_num_threads()) if parallel else 1)
