"""Tables that are out of the ordinary: other dtypes, and more elements than 31 bits can count."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import psutil
import torch

from embconform.backends.backend import Backend
from embconform.conformance.finding import Finding, same_bits
from embconform.conformance.judging import Ruling
from embconform.conformance.observe import to_numpy, to_torch
from embconform.conformance.outcome import raised_from
from embconform.conformance.probes import Probe
from embconform.reference.clause import Profile

OTHER_DTYPES = (
    *(np.dtype(name) for name in ("int8", "uint8", "int16", "int32", "int64", "bool")),
    *(np.dtype(name) for name in ("complex64", "complex128")),
    np.dtype(ml_dtypes.float8_e4m3fn),
    np.dtype(ml_dtypes.float8_e5m2),
)
WIDTH = 1024
HUGE_ROWS = 2**31 // WIDTH + 9
MEMORY = 3 * 2 * HUGE_ROWS * WIDTH
"""Bytes wanted free: the table in a 16-bit dtype, should the target copy it, twice over."""


def _other_dtypes(backend: Backend, profile: Profile, seed: int, device: str) -> list[Ruling]:
    """Look up in tables of integers, booleans, complex numbers and 8-bit floats."""
    del profile
    functional = backend.functional
    assert functional is not None
    rng = np.random.default_rng(seed)
    findings: list[Finding | None] = []
    for dtype in OTHER_DTYPES:
        raw = rng.integers(0, 2 if dtype.kind == "b" else 256, (5, 3 * dtype.itemsize), np.uint8)
        table = raw.view(dtype)
        ids = np.array([[4, 0], [2, 4]])
        try:
            with torch.no_grad():
                out = functional(to_torch(ids).to(device), to_torch(table.copy()).to(device))
        except Exception as error:
            reason = f"{dtype.name} table: {raised_from(error)}"
            findings.append(Finding(reason, reason, refused=True))
            continue
        try:
            got = to_numpy(out)
        except Exception as error:
            kind = type(out).__name__
            reason = f"a {dtype.name} table gives a {kind} that can't be read: {raised_from(error)}"
            findings.append(Finding(reason, kind, dtype.name))
            continue
        finding: Finding | None
        if got.dtype != dtype or got.shape != (2, 2, 3):
            seen = f"{got.dtype} of shape {got.shape}"
            finding = Finding(f"a {dtype.name} table gives {seen}", seen, dtype.name)
        else:
            found = same_bits("out", got, table[ids])
            finding = found and replace(
                found, message=f"{dtype.name} table: {found.message}", check=None
            )
        findings.append(finding)
    return [_worst("lookup.other-dtypes", findings)]


def _worst(clause: str, findings: list[Finding | None]) -> Ruling:
    """Rule by the first wrong value, else by a refusal if everything was refused, else pass."""
    wrong = [f for f in findings if f is not None and not f.refused]
    refused = [f for f in findings if f is not None and f.refused]
    if wrong:
        return Ruling(clause, wrong[0])
    return Ruling(clause, refused[0] if len(refused) == len(findings) else None)


def _huge(backend: Backend, profile: Profile, seed: int, device: str) -> list[Ruling]:
    """Look up the last rows of a table that only its first pages and these rows are written of."""
    del profile
    return [Ruling("lookup.huge-table", _huge_finding(backend, seed, device))]


def _huge_finding(backend: Backend, seed: int, device: str) -> Finding | None:
    functional = backend.functional
    assert functional is not None
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    if free < MEMORY:
        reason = f"only {free / 2**30:.1f} GiB are free here, and {MEMORY / 2**30:.1f} are wanted"
        return Finding(reason, reason, refused=True)
    rows = np.array([0, HUGE_ROWS - 1, 5, HUGE_ROWS - 7, 2**30 // WIDTH + 1])
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((len(rows), WIDTH)).astype(ml_dtypes.bfloat16)
    table = torch.empty(HUGE_ROWS, WIDTH, dtype=torch.bfloat16, device=device)
    table[to_torch(rows).to(device)] = to_torch(values).to(device)
    try:
        with torch.no_grad():
            got = to_numpy(functional(to_torch(rows).to(device), table))
    except Exception as error:
        return Finding(f"raised {raised_from(error)} for a table of {HUGE_ROWS} x {WIDTH}")
    if got.shape != values.shape or got.dtype != values.dtype:
        return Finding(f"a table of {HUGE_ROWS} x {WIDTH} gives {got.dtype} of shape {got.shape}")
    found = same_bits("out", got, values)
    return found and replace(
        found,
        message=f"ids {rows.tolist()} of a table of {HUGE_ROWS} x {WIDTH}: {found.message}",
        check=None,
    )


TABLE_PROBES = (
    Probe(
        "other dtypes", frozenset({"lookup.other-dtypes"}), frozenset({"functional"}), _other_dtypes
    ),
    Probe("huge table", frozenset({"lookup.huge-table"}), frozenset({"functional", "half"}), _huge),
)
