"""embedding.cu on the CPU, by cuda_on_cpu.h and a C++ compiler, launched as on a device."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path
from shutil import which
from tempfile import mkdtemp
from typing import Any

import torch

from embconform.backends.gpu.cuda_launch import SOURCE, CudaKernels, Place
from embconform.backends.gpu.operator import Operator

SHIM = Path(__file__).with_name("cuda_on_cpu.h")
PROCESSORS = 2
COMPILER = which("g++") or which("clang++")


def build(source: Path = SOURCE) -> ctypes.PyDLL:
    assert COMPILER is not None
    made = Path(mkdtemp(prefix="embconform-cu-")) / "kernels.so"
    options = ("-O1", "-std=c++17", "-fno-strict-aliasing", "-shared", "-fPIC", "-w")
    command = [COMPILER, *options, "-include", str(SHIM), "-x", "c++", str(source), "-o", str(made)]
    subprocess.run(command, check=True)
    library = ctypes.PyDLL(str(made))  # fibers and threads don't mix
    made.unlink()
    made.parent.rmdir()
    return library


class EmulatedModule:
    """Launches as nvrtc.Module does."""

    def __init__(self, source: Path = SOURCE) -> None:
        self._library = build(source)

    def launch(
        self, name: str, stream: int, grid: tuple[int, ...], block: int, *arguments: Any
    ) -> None:
        assert stream == 0
        across = (ctypes.c_uint * 2)(*grid, *([1] if len(grid) == 1 else []))
        integers = [given for given in arguments if not isinstance(given, float)]
        numbers = [given for given in arguments if isinstance(given, float)]
        self._library.emulate(
            ctypes.cast(getattr(self._library, name), ctypes.c_void_p),
            across,
            ctypes.c_uint(block),
            (ctypes.c_longlong * len(integers))(*integers),
            len(integers),
            (ctypes.c_double * max(1, len(numbers)))(*numbers),
            len(numbers),
        )


@cache
def right() -> EmulatedModule:
    return EmulatedModule()


class EmulatedKernels(CudaKernels):
    """CudaKernels whose launches are emulated."""

    def __init__(self, module: EmulatedModule | None = None) -> None:
        super().__init__()
        self._module = module

    def place(self, tensor: torch.Tensor) -> Any:
        assert tensor.device.type == "cpu"
        module: Any = self._module or right()
        return Place(module, 0, PROCESSORS)


OPERATOR = Operator("emulated", EmulatedKernels)
embedding = OPERATOR.embedding
