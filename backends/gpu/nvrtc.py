"""CUDA C++ to a cubin, by NVRTC through cuda-core, and a cubin's kernels to a stream."""

from __future__ import annotations

import io
import tempfile
import threading
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from embconform.backends.cache import cache_folder

STRICT: Final = ("-v", "-warn-spills", "-warn-lmem-usage")
"""What ptxas is told to complain of: registers that spill, and arrays in local memory."""
_OVERLAPPING: Final = 90
_THREAD: Final = threading.local()


class CompilationError(Exception):
    """NVRTC refused a source; the message is its log."""


def missing() -> str | None:
    """Say which package is missing, or None."""
    try:
        _core()
    except ImportError:
        return "cuda-core is not installed: pip install 'embconform[cuda-cpp]'"
    return None


def compiled(source: Path, arch: str) -> bytes:
    """Compile a file, or read what an earlier process made of the same.

    Parameters
    ----------
    source : Path
    arch : str
        Such as ``sm_90``.

    Returns
    -------
    bytes
        The cubin.

    Raises
    ------
    CompilationError
    """
    text = source.read_text(encoding="utf-8")
    key = sha256("\0".join((text, arch, _version())).encode()).hexdigest()[:32]
    kept = cache_folder() / "cubin" / f"{source.stem}-{arch}-{key}.cubin"
    if kept.is_file():
        return kept.read_bytes()
    code, _ = build(text, arch)
    _keep(kept, code)
    return code


def build(text: str, arch: str) -> tuple[bytes, str]:
    """Compile a source.

    Parameters
    ----------
    text : str
    arch : str

    Returns
    -------
    code : bytes
        The cubin.
    log : str
        What NVRTC and ptxas had to say.

    Raises
    ------
    CompilationError
    """
    core, log = _core(), io.StringIO()
    options = core.ProgramOptions(
        arch=arch,
        std="c++17",
        ptxas_options=list(STRICT),
        no_cache=True,  # NVRTC's own: what comes from there has no log
    )
    try:
        made = core.Program(text, "c++", options).compile("cubin", logs=log)
    except Exception as error:
        raise CompilationError(f"{error}\n{log.getvalue()}") from error
    return bytes(made.code), log.getvalue().replace("\0", "")


@cache
def _core() -> Any:
    from cuda import core

    return core


def _version() -> str:
    from cuda.bindings import nvrtc

    return str(nvrtc.nvrtcVersion()[1:])


def _keep(kept: Path, code: bytes) -> None:
    """Write a file whole or not at all; a folder that can't be written to only costs time."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            part = Path(folder) / kept.name
            part.write_bytes(code)
            part.replace(kept)
    except OSError:
        return


class Module:
    """A file's kernels on one device.

    Parameters
    ----------
    source : Path
    arch : str
    device : int
    """

    def __init__(self, source: Path, arch: str, device: int) -> None:
        self._device = device
        self._code = _core().ObjectCode.from_cubin(compiled(source, arch))
        self._kernels: dict[str, Any] = {}
        self._overlaps = int(arch.removeprefix("sm_")) >= _OVERLAPPING

    def launch(
        self, name: str, stream: int, grid: tuple[int, ...], block: int, *arguments: int | float
    ) -> None:
        """Launch a kernel whose parameters are pointers, 64-bit integers and doubles.

        It may begin while the kernel before it in the stream still runs, and so has to wait for
        that by itself before it touches memory (programmatic dependent launch, from sm_90 on).

        Parameters
        ----------
        name : str
        stream : int
            The handle of a CUDA stream.
        grid : tuple of int
        block : int
        arguments : int or float
        """
        core = _core()
        _bind(self._device)
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = self._kernels[name] = self._code.get_kernel(name)
        config = core.LaunchConfig(
            grid=grid, block=(block,), programmatic_stream_serialization=self._overlaps
        )
        core.launch(_stream(stream), config, kernel, *arguments)


def _bind(device: int) -> None:
    """Give a thread that has no CUDA context yet, as autograd's may have none, that of a device."""
    if getattr(_THREAD, "bound", False):
        return
    from cuda.bindings import driver

    if not int(driver.cuCtxGetCurrent()[1]):
        _core().Device(device).set_current()
    _THREAD.bound = True


@lru_cache(maxsize=256)
def _stream(handle: int) -> Any:
    """Name a stream of torch's as cuda-core does."""
    core = _core()
    return core.Stream.from_handle(handle) if handle else core.LEGACY_DEFAULT_STREAM
