"""Messages between two processes: pickles through a pipe, large arrays through shared memory."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import struct
import tempfile
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, Final

SHARED_FROM: Final = 32 * 1024
"""Bytes from which an array goes through shared memory; below, the pipe is faster."""
MARK: Final = struct.Struct("=q")
"""How a target's process writes down in shared memory which step it is at."""
_ALIGN: Final = 64
_HEAD: Final = struct.Struct("=Iq")


class Memory:
    """A file without a name that two processes map, and that grows as its writer needs it.

    Parameters
    ----------
    number : int, optional
        An inherited file descriptor; a new file is made where it is left out.
    """

    def __init__(self, number: int | None = None) -> None:
        self.number = _nameless_file() if number is None else number
        self._map: mmap.mmap | None = None

    def view(self, size: int, *, grow: bool = False) -> mmap.mmap:
        """Map at least `size` bytes, which the file must have unless it may grow."""
        if self._map is None or len(self._map) < size:
            if grow:
                os.ftruncate(self.number, size)
            self._map = mmap.mmap(self.number, size)
        return self._map

    def close(self) -> None:
        """Let go of the file; it is gone when both sides have."""
        if self._map is not None:
            self._map.close()
        os.close(self.number)


def _nameless_file() -> int:
    """Make a file in memory that nothing can leave behind."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("embconform")
    with tempfile.TemporaryFile() as file:  # unlinked at once
        return os.dup(file.fileno())


class Channel:
    """One end of a conversation.

    Parameters
    ----------
    connection : multiprocessing.connection.Connection
    outgoing, incoming : Memory
        Each is written by one side only.
    distrust : bool
        Build nothing but plain data out of what comes in: a pickle can call any function, and the
        other side runs foreign code.
    """

    def __init__(
        self, connection: Connection, outgoing: Memory, incoming: Memory, *, distrust: bool
    ) -> None:
        self.connection, self.outgoing, self.incoming = connection, outgoing, incoming
        self._unpickler = _PlainUnpickler if distrust else pickle.Unpickler

    def send(self, message: Any) -> None:
        """Send an object; its large arrays are copied into shared memory."""
        large: list[memoryview] = []

        def keep_small(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < SHARED_FROM:
                return True
            large.append(raw)
            return False

        body = pickle.dumps(message, protocol=5, buffer_callback=keep_small)
        places, size = _places([part.nbytes for part in large])
        if large:
            shared = self.outgoing.view(size, grow=True)
            for start, part in zip(places, large, strict=True):
                shared[start : start + part.nbytes] = part
        sizes = struct.pack(f"={len(large)}q", *(part.nbytes for part in large))
        self.connection.send_bytes(_HEAD.pack(len(large), len(body)) + sizes + body)

    def receive(self) -> Any:
        """Wait for an object.

        Raises
        ------
        EOFError, OSError
            If the other side has gone.
        pickle.UnpicklingError
            If what came is not plain data and the other side is distrusted.
        """
        data = self.connection.recv_bytes()
        number, length = _HEAD.unpack_from(data)
        sizes = struct.unpack_from(f"={number}q", data, _HEAD.size)
        places, size = _places(list(sizes))
        buffers = []
        if number:
            shared = self.incoming.view(size)
            buffers = [bytearray(shared[at : at + n]) for at, n in zip(places, sizes, strict=True)]
        body = io.BytesIO(data[len(data) - length :])
        return self._unpickler(body, buffers=buffers).load()


def _places(sizes: list[int]) -> tuple[list[int], int]:
    """Lay buffers out one after the other; return where each starts, and where the last ends."""
    places, end = [], 0
    for size in sizes:
        places.append(end)
        end += -(-size // _ALIGN) * _ALIGN
    return places, end


_ALLOWED: Final = {
    "builtins": {"complex", "set", "frozenset", "bytearray", "slice", "range"},
    "numpy": {"ndarray", "dtype"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "_codecs": {"encode"},
}
_NUMPY: Final = {"_frombuffer", "_reconstruct", "scalar"}


class _PlainUnpickler(pickle.Unpickler):
    """Builds arrays and the suite's own dataclasses, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Allow a global by its name.

        Raises
        ------
        pickle.UnpicklingError
            If it is not one of those that plain data need.
        """
        if name in _ALLOWED.get(module, ()):
            return super().find_class(module, name)
        if module.split(".", maxsplit=1)[0] == "numpy" and (
            name in _NUMPY or _is_scalar_type(module, name)
        ):
            return super().find_class(module, name)
        if module == "ml_dtypes" or module.startswith("ml_dtypes."):
            return super().find_class(module, name)
        if module.startswith("embconform."):
            found = getattr(import_module(module), name, None)
            if isinstance(found, type) and (
                hasattr(found, "__dataclass_fields__") or hasattr(found, "__members__")
            ):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def _is_scalar_type(module: str, name: str) -> bool:
    import numpy as np

    found = getattr(np, name, None) if module == "numpy" else None
    return isinstance(found, type) and issubclass(found, np.generic)
