"""A case as bytes that can be shared: JSON and arrays in NumPy's npz, without pickle."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, fields
from typing import Any, Final, get_args

import numpy as np

from embconform.conformance.cases import case as cases
from embconform.conformance.cases.case import GRAD_MODES, Case, Layout, Step
from embconform.conformance.cases.structure import Structure
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array
from embconform.reference.oracle import Options

FORMAT: Final = 2
LARGEST: Final = 256 * 2**20
"""Bytes that a case may have once it is unpacked."""
_CLASSES: Final = {
    kind.__name__: kind
    for kind in (
        cases.Placed,
        cases.Call,
        cases.Backward,
        cases.DoubleBackward,
        cases.ClearGradient,
        cases.WriteWeight,
        cases.WriteIndices,
        Case,
        Structure,
        Options,
    )
}
_DTYPES: Final = (
    "float16", "float32", "float64", "bfloat16", "bool", "complex64", "complex128",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip


class CaseRecordError(ValueError):
    """Bytes that are no case, or a damaged one."""


@dataclass(frozen=True)
class KnownFailure:
    """A case that broke a clause, and the stratum that it was drawn from."""

    clause: str
    case: Case
    structure: Structure


def pack(known: KnownFailure) -> bytes:
    """Write a failing case as bytes, the same each time.

    Parameters
    ----------
    known : KnownFailure

    Returns
    -------
    bytes
    """
    arrays: list[Array] = []
    plain = {
        "format": FORMAT,
        "clause": known.clause,
        "case": _plain(known.case, arrays),
        "structure": _plain(known.structure, arrays),
    }
    parts: dict[str, Any] = {
        f"a{k}": np.frombuffer(array.tobytes(), np.uint8) for k, array in enumerate(arrays)
    }
    text = np.frombuffer(json.dumps(plain, sort_keys=True).encode(), np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, json=text, **parts)
    return stream.getvalue()


def unpack(data: bytes) -> KnownFailure:
    """Read a failing case; nothing but plain data is built of the bytes.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    KnownFailure

    Raises
    ------
    CaseRecordError
        If they are something else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(part.file_size for part in archive.infolist()) > LARGEST:
                raise CaseRecordError("it is too large")
        with np.load(io.BytesIO(data), allow_pickle=False) as parts:
            plain = json.loads(parts["json"].tobytes())
            if plain["format"] != FORMAT:
                raise CaseRecordError(f"it has format {plain['format']!r}")
            arrays = {name: parts[name].tobytes() for name in parts.files if name != "json"}
        case, structure = (_built(plain[name], arrays) for name in ("case", "structure"))
        if not (isinstance(case, Case) and isinstance(structure, Structure)):
            raise TypeError("no case and stratum")
        return KnownFailure(str(plain["clause"]), _sound(case), structure)
    except CaseRecordError:
        raise
    except Exception as error:  # whatever a damaged or forged file makes zlib, JSON or NumPy say
        raise CaseRecordError(f"{type(error).__name__}: {error}") from error


def _plain(value: Any, arrays: list[Array]) -> Any:
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1, "dtype": value.dtype.name, "shape": list(value.shape)}
    if isinstance(value, tuple):
        return [_plain(inner, arrays) for inner in value]
    if type(value).__name__ in _CLASSES:
        inner = {f.name: _plain(getattr(value, f.name), arrays) for f in fields(value)}
        return {"is": type(value).__name__, **inner}
    if isinstance(value, float):
        return {"float": value.hex()}
    return value


def _built(value: Any, arrays: dict[str, bytes]) -> Any:
    if isinstance(value, list):
        return tuple(_built(inner, arrays) for inner in value)
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float.fromhex(value["float"])
    if "array" in value:
        return _array(value, arrays)
    kind = _CLASSES[value["is"]]
    return kind(**{key: _built(inner, arrays) for key, inner in value.items() if key != "is"})


def _array(value: dict[str, Any], arrays: dict[str, bytes]) -> Array:
    if value["dtype"] not in _DTYPES:
        raise TypeError(f"an array of {value['dtype']!r}")
    import ml_dtypes

    known = ml_dtypes.bfloat16 if value["dtype"] == "bfloat16" else value["dtype"]
    flat = np.frombuffer(arrays[f"a{value['array']}"], np.dtype(known))
    return flat.reshape(value["shape"]).copy()


def _sound(case: Case) -> Case:
    """See that a case is one that can be run.

    Raises
    ------
    TypeError, ValueError
        If it is not.
    """
    if (type(case.weight), type(case.options)) != (cases.Placed, Options):
        raise TypeError("no table or no options")
    if not case.steps or not all(isinstance(step, Step) for step in case.steps):
        raise TypeError("no steps")
    placed = [case.weight, *(call.indices for _, call in case.calls)]
    if any(each.layout not in get_args(Layout) for each in placed):
        raise ValueError("an unknown layout")
    if case.mode not in GRAD_MODES:
        raise ValueError("an unknown mode")
    if case.entry not in ("functional", "module"):
        raise ValueError("an unknown form")
    made = {field.name: getattr(case, field.name) for field in fields(case)}
    return Case(**made | {"profile": Profile(case.profile)})
