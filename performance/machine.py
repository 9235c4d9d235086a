"""The machine and the versions that a measurement belongs to."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil
import torch

from embconform.performance.timers import last_level_cache

_PACKAGES: Final = ("embconform", "torch", "numpy", "scipy", "triton")


def machine(device: str, threads: int) -> dict[str, str]:
    """Describe where a measurement took place.

    Parameters
    ----------
    device : str
    threads : int
        What torch was given.

    Returns
    -------
    dict of str to str
    """
    found = {name: found for name in _PACKAGES if (found := _version(name))}
    memory = psutil.virtual_memory()
    found |= {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "affinity": ",".join(map(str, sorted(_affinity()))),
        "threads": str(threads),
        "last-level cache": f"{last_level_cache() / 2**20:.0f} MiB",
        "memory": f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} free",
        "load": f"{psutil.getloadavg()[0]:.2f}",
        "governor": _governor(),
    }
    if device == "cuda":
        found |= _gpu()
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _affinity() -> set[int]:
    """List the cores that this process may run on."""
    try:
        return set(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return set(range(os.cpu_count() or 1))


def _cpu() -> str:
    """Read the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _governor() -> str:
    """Read what sets the clock rate, where the system tells."""
    file = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return file.read_text().strip() if file.is_file() else "not told"


def _gpu() -> dict[str, str]:
    from embconform.performance.cuda import read_chip

    found = {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    chip = read_chip()
    if chip is None:
        return found | {"clocks": "not told: nvidia-ml-py is missing"}
    return found | {
        "driver": chip.driver,
        "clocks": f"SM {chip.sm_mhz} MHz, memory {chip.memory_mhz} MHz, {chip.celsius} °C",
        "throttled": chip.throttled or "no",
    }
