"""Tables that are out of the ordinary: other dtypes, and more elements than 31 bits can count."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import psutil

from embconform.backends.backend import Backend, Described
from embconform.conformance.finding import Finding, same_bits
from embconform.conformance.judging import Ruling
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_torch
from embconform.conformance.outcome import Raised, raised_from
from embconform.conformance.probes.claims import Returned
from embconform.conformance.probes.registry import Probe
from embconform.conformance.recording import read
from embconform.conformance.settling import Settling
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

OTHER_DTYPES = (
    *(np.dtype(name) for name in ("int8", "uint8", "int16", "int32", "int64", "bool")),
    *(np.dtype(name) for name in ("complex64", "complex128")),
    np.dtype(ml_dtypes.float8_e4m3fn),
    np.dtype(ml_dtypes.float8_e5m2),
)
NEGATED = np.dtype(np.float32)
"""The dtype of a real table that is negated when it is read."""
WIDTH = 1024
HUGE_ROWS = 2**31 // WIDTH + 9
MEMORY = 2 * 2 * HUGE_ROWS * WIDTH
"""Bytes wanted free: the table in a 16-bit dtype, and a copy, should the target make one."""


@dataclass(frozen=True)
class TooLittleMemory:
    """Why a table was not made: the bytes that are free."""

    free: int


Seen = Returned | Raised | TooLittleMemory


def _call(backend: Backend, ids: Array, table: torch.Tensor) -> Returned | Raised:
    """Look up without a gradient."""
    assert backend.functional is not None
    try:
        with torch.no_grad():
            out = backend.functional(to_torch(ids.copy()).to(table.device), table)
        Settling(backend, table.device.type)()
    except (Exception, SystemExit) as error:
        return raised_from(error)
    return read(out)


# Other dtypes

OTHER_IDS = np.array([[4, 0], [2, 4]])


def _other_tables(seed: int) -> Iterator[Array]:
    """Draw a table of each dtype, all bit patterns alike; a row of bytes has each of them."""
    rng = np.random.default_rng(seed)
    for dtype in OTHER_DTYPES:
        patterns = 2 if dtype.kind == "b" else 256
        if dtype.itemsize == 1:
            raw = rng.permuted(np.tile(np.arange(patterns, dtype=np.uint8), (5, 1)), axis=1)
        else:
            raw = rng.integers(0, patterns, (5, 3 * dtype.itemsize), np.uint8)
        yield raw.view(dtype)
    yield rng.standard_normal((5, 3)).astype(NEGATED)


def _observe_other(
    backend: Backend, profile: Profile, seed: int, device: str
) -> tuple[Returned | Raised, ...]:
    """Look up in tables of other dtypes, and in lazy views."""
    del profile
    tables = (to_torch(table).to(device) for table in _other_tables(seed))
    return tuple(_call(backend, OTHER_IDS, _lazy(table)) for table in tables)


def _lazy(table: torch.Tensor) -> torch.Tensor:
    """Give a table as a view of the same values that is conjugated or negated when it is read."""
    if table.dtype is torch.float32:
        return torch.complex(table, -table).conj().imag
    return table.conj_physical().conj() if table.is_complex() else table


def _judge_other(
    observation: tuple[Returned | Raised, ...], described: Described, profile: Profile, seed: int
) -> list[Ruling]:
    """Rule by the first wrong value, else by a refusal if everything was refused, else pass."""
    del described, profile
    findings = [
        _other(table, seen) for table, seen in zip(_other_tables(seed), observation, strict=True)
    ]
    wrong = [f for f in findings if f is not None and not f.refused]
    refused = [f for f in findings if f is not None and f.refused]
    finding = wrong[0] if wrong else refused[0] if len(refused) == len(findings) else None
    return [Ruling("lookup.other-dtypes", finding)]


def _other(table: Array, seen: Returned | Raised) -> Finding | None:
    name = "negated " * (table.dtype == NEGATED) + table.dtype.name
    if isinstance(seen, Raised):
        return Finding(f"{name} table: {seen}", f"{name} table: {seen}", refused=True)
    exact = table[OTHER_IDS]
    return _compare(f"a {name} table", f"{name} table", seen, exact)


def _compare(what: str, head: str, seen: Returned, exact: Array) -> Finding | None:
    """Compare what a table gave, bit for bit; a tensor that can't be read is wrong."""
    if (seen.dtype, seen.shape) != (exact.dtype.name, exact.shape):
        kind = f"{seen.dtype} of shape {seen.shape}" if seen.dtype else f"a {seen.kind}"
        return Finding(f"{what} gives {kind}", kind, f"{exact.dtype.name} of shape {exact.shape}")
    if seen.values is None:
        reason = f"{what} gives a {seen.kind} that can't be read: {seen.raised}"
        return Finding(reason, seen.kind, exact.dtype.name)
    found = same_bits("out", seen.values, exact)
    return found and replace(found, message=f"{head}: {found.message}", check=None)


# A huge table

HUGE_IDS = np.array([0, HUGE_ROWS - 1, 5, HUGE_ROWS - 7, 2**30 // WIDTH + 1])


def _huge_rows(seed: int, described: Described) -> Array:
    """Draw the rows in a 16-bit dtype that the target has."""
    has_bfloat16 = "bfloat16" in described.capabilities.dtypes
    dtype: Any = ml_dtypes.bfloat16 if has_bfloat16 else np.float16
    rng = np.random.default_rng(seed)
    values: Any = rng.standard_normal((len(HUGE_IDS), WIDTH))
    return np.asarray(values.astype(dtype))


def _free(device: str) -> int:
    if device != "cuda":
        return min(int(psutil.virtual_memory().available), _allowed())
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def _allowed() -> int:
    """Count the bytes that this process may still ask for, under the limit of isolated targets."""
    if sys.platform != "linux":
        return sys.maxsize
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return sys.maxsize
    return int(most - psutil.Process().memory_info().vms)


def _huge_ids(described: Described) -> list[Array]:
    """Give the indices in each dtype that the target takes."""
    return [HUGE_IDS.astype(dtype) for dtype in described.capabilities.index_dtypes]


def _observe_huge(backend: Backend, profile: Profile, seed: int, device: str) -> tuple[Seen, ...]:
    """Look up the last rows of a table that only its first pages and these rows are written of."""
    del profile
    free = _free(device)
    if free < MEMORY:
        return (TooLittleMemory(free),)
    rows = to_torch(_huge_rows(seed, backend)).to(device)
    table = torch.empty(HUGE_ROWS, WIDTH, dtype=rows.dtype, device=device)
    table[to_torch(HUGE_IDS.copy()).to(device)] = rows
    return tuple(_call(backend, ids, table) for ids in _huge_ids(backend))


def _judge_huge(
    seen: tuple[Seen, ...], described: Described, profile: Profile, seed: int
) -> list[Ruling]:
    """Compare the rows bit for bit."""
    del profile
    exact = _huge_rows(seed, described)
    return [
        Ruling("lookup.huge-table", _huge(one, ids, exact))
        for one, ids in zip(seen, _huge_ids(described), strict=False)
    ]


def _huge(seen: Seen, ids: Array, exact: Array) -> Finding | None:
    what = f"a table of {HUGE_ROWS} x {WIDTH}"
    if isinstance(seen, TooLittleMemory):
        wanted = f"{MEMORY / 2**30:.1f} are wanted"
        reason = f"only {seen.free / 2**30:.1f} GiB are free here, and {wanted}"
        return Finding(reason, reason, refused=True)
    if isinstance(seen, Raised):
        said, short = str(seen), seen.short_of_memory
        return Finding(f"raised {said} for {what}", said, "no exception", refused=short)
    return _compare(what, f"{ids.dtype} ids {ids.tolist()} of {what}", seen, exact)


TABLE_PROBES = (
    Probe(
        "other dtypes",
        frozenset({"lookup.other-dtypes"}),
        frozenset({"functional"}),
        _observe_other,
        _judge_other,
    ),
    Probe(
        "huge table",
        frozenset({"lookup.huge-table"}),
        frozenset({"functional", "half", "huge_tables"}),
        _observe_huge,
        _judge_huge,
    ),
)
