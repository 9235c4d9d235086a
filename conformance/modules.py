"""What a module's constructor makes: parameters, initial values, state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import kolmogorov, ndtr

from embconform.backends.backend import Backend
from embconform.conformance.finding import Finding, equal
from embconform.conformance.judging import Ruling
from embconform.conformance.observe import raised_from, to_numpy
from embconform.conformance.probes import Probe
from embconform.reference.clause import Profile, registry
from embconform.reference.dtypes import Array

ROWS, WIDTH = 4096, 64
FALSE_ALARM = 1e-8
"""Chance that a right initialisation fails one distribution test; a run makes one of them."""


def _weight(module: Any) -> Array:
    return to_numpy(module.weight)


def _parameter(backend: Backend, profile: Profile, seed: int) -> Finding | None:
    del profile, seed
    module = backend.module(5, 3)  # type: ignore[misc]
    found = [(name, tuple(value.shape)) for name, value in module.named_parameters()]
    return equal("parameters", found, [("weight", (5, 3))]) or equal(
        "weight.requires_grad", module.weight.requires_grad, True
    )


def _drawn(backend: Backend, profile: Profile, seed: int) -> Finding | None:
    torch.manual_seed(seed)
    deviation = 1.0 if profile is Profile.TORCH else WIDTH**-0.5
    values = _weight(backend.module(ROWS, WIDTH)).astype(np.float64).reshape(-1)  # type: ignore[misc]
    distinct = len(np.unique(values)) / values.size
    if distinct < 0.9:
        return Finding(f"only {distinct:.0%} of the values of a new table are distinct")
    order = np.sort(values / deviation)
    steps = np.arange(values.size + 1) / values.size
    theory = ndtr(order)
    distance = max(float((steps[1:] - theory).max()), float((theory - steps[:-1]).max()))
    chance = float(kolmogorov(np.sqrt(values.size) * distance))
    if chance >= FALSE_ALARM:
        return None
    return Finding(
        f"a new table of {ROWS} x {WIDTH} has mean {values.mean():.4g} and standard deviation "
        f"{values.std():.4g}; it is not drawn from N(0, {deviation:.4g}²) "
        f"(Kolmogorov-Smirnov, p = {chance:.2g})",
        f"standard deviation {values.std():.6g}",
        f"standard deviation {deviation:.6g}",
        f"p >= {FALSE_ALARM:g}",
    )


def _padding_row(backend: Backend, profile: Profile, seed: int) -> Finding | None:
    torch.manual_seed(seed)
    for padding in (0, 2, 6):
        row = _weight(backend.module(7, 5, padding_idx=padding))[padding]  # type: ignore[misc]
        zeroed = bool((row == 0).all())
        if zeroed is not (profile is Profile.TORCH):
            right = "zeros" if profile is Profile.TORCH else "drawn like the others"
            return Finding(
                f"row padding_idx={padding} of a new table is {row.tolist()}, must be {right}",
                str(row.tolist()),
                right,
            )
    return None


def _seeded(backend: Backend, profile: Profile, seed: int) -> Finding | None:
    del profile

    def draw() -> tuple[Array, Array]:
        torch.manual_seed(seed)
        return _weight(backend.module(6, 4)), _weight(backend.module(6, 4))  # type: ignore[misc]

    (first, second), (again, _) = draw(), draw()
    if not np.array_equal(first, again):
        return Finding("torch.manual_seed does not reproduce a new table")
    if np.array_equal(first, second):
        return Finding("two tables drawn one after the other are equal")
    return None


def _state(backend: Backend, profile: Profile, seed: int) -> Finding | None:
    del profile
    torch.manual_seed(seed)
    options = {"padding_idx": 2} if "padding_idx" in backend.able else {}
    source, copy = (backend.module(6, 4, **options) for _ in range(2))  # type: ignore[misc]
    source.weight.data += 0.5  # a loaded padding row need not be 0
    ids = torch.tensor([0, 5, 2])
    copy(ids)
    finding = equal("list(state_dict())", list(source.state_dict()), ["weight"])
    if finding:
        return finding
    copy.load_state_dict(source.state_dict())
    if np.array_equal(_weight(copy), _weight(source)) and torch.equal(copy(ids), source(ids)):
        return None
    return Finding("after load_state_dict the module does not look up the loaded rows")


_Check = Callable[[Backend, Profile, int], Finding | None]
_CHECKS: dict[str, _Check] = {
    "module.weight-is-parameter": _parameter,
    "module.init-normal": _drawn,
    "module.init-scaled-normal": _drawn,
    "module.padding-row-zeroed": _padding_row,
    "module.padding-row-drawn": _padding_row,
    "module.seeded-init": _seeded,
    "module.state-dict": _state,
}


def _run(backend: Backend, profile: Profile, seed: int, device: str) -> list[Ruling]:
    rulings = []
    for clause, check in _CHECKS.items():
        entry = registry()[clause]
        if profile not in entry.profiles or not entry.needs <= backend.able:
            continue
        with torch.random.fork_rng(devices=[]), torch.device(device):
            try:
                finding = check(backend, profile, seed)
            except (Exception, SystemExit) as error:
                finding = Finding(f"raised {raised_from(error)}", str(raised_from(error)))
        rulings.append(Ruling(clause, finding))
    return rulings


MODULE_PROBE = Probe("module", frozenset(_CHECKS), frozenset({"module"}), _run)
