"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from embconform import __version__


def environment(device: str) -> dict[str, str]:
    """Describe where a run took place.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda``.

    Returns
    -------
    dict of str to str
        Versions of Python and of the packages that matter, and the device.
    """
    found = {"embconform": __version__}
    found |= {name: version(name) for name in ("torch", "numpy", "hypothesis")}
    found |= {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
    }
    if device == "cuda" and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
    return found
