"""Which device a target runs on, and whether that is here."""

from __future__ import annotations

from embconform.backends.backend import Capabilities, TargetError

DEVICES = ("cpu", "cuda")
"""The device types that the suite knows how to use."""


def cuda_unavailable() -> str | None:
    """Say why nothing can run on a CUDA device here.

    Returns
    -------
    str or None
        One line; None where there is a device. Asking starts the driver in this process, which
        must not be forked afterwards.
    """
    import torch

    if torch.cuda.is_available():
        return None
    return f"it needs a CUDA device, and torch {torch.__version__} finds none"


def check_device(target: str, capabilities: Capabilities, device: str) -> None:
    """Refuse a device that the target doesn't serve or that isn't here.

    Parameters
    ----------
    target : str
        As the user named it.
    capabilities : Capabilities
    device : str

    Raises
    ------
    TargetError
    """
    if device not in capabilities.devices:
        serves = ", ".join(capabilities.devices)
        raise TargetError(f"{target} runs on {serves}, not on {device}")
    if device == "cuda" and cuda_unavailable():
        import torch

        raise TargetError(
            f"{target} can't run on cuda: torch {torch.__version__} finds no CUDA device here"
        )
