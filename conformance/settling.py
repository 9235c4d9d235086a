"""Wait for what a target has started, and see whether its device survived that."""

from __future__ import annotations

from dataclasses import dataclass

from embconform.backends.backend import Backend
from embconform.conformance.lazy_torch import torch


@dataclass(frozen=True)
class Settling:
    """Waits for a target's work on a device.

    A kernel that fails, such as by a device-side assert, is told of by a later call, and takes the
    CUDA context with it: every call after that raises, until the process ends.

    Attributes
    ----------
    backend : Backend
    device : str
    """

    backend: Backend
    device: str

    def __call__(self) -> None:
        """Wait until everything that was started is done; what went wrong in it is raised here."""
        if self.backend.synchronize:
            self.backend.synchronize()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def lost(self) -> bool:
        """Tell, after an exception, whether the device can be used no more: it raises for good."""
        return self._raises() and self._raises()

    def _raises(self) -> bool:
        try:
            self()
        except Exception:
            return True
        return False
