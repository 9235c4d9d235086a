"""What of torch, NumPy and random is the same after a call as before: random states, modes."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any, Final, TypeAlias

import numpy as np

from embconform.backends.backend import TABLE_DTYPES
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Must
from embconform.conformance.probes.torch_threads import torch_threads
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.reference.dtypes import Array

_CLAUSE: Final = "state.torch-as-it-was"
THREADED: Final = 1500
"""Indices of the largest call: beyond where kernels change their number of threads."""
SIZES: Final = ((3, 3), (70, 48), (THREADED, 3))
"""Numbers of indices and of columns."""
SUBNORMAL: Final = 2.0**-140
State: TypeAlias = "dict[str, Any]"
Settings: TypeAlias = "dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]"


def _settings() -> Settings:
    """List what is to stay, and how it is read and set."""
    return {
        "the random state": (
            lambda: torch.get_rng_state().numpy().tobytes(),
            _set_random_state,
        ),
        "random's state": (random.getstate, random.setstate),
        "NumPy's random state": (_numpy_state, _set_numpy_state),
        "whether subnormal numbers are flushed to zero": (_flushes, torch.set_flush_denormal),
        "the default device": (torch.get_default_device, torch.set_default_device),
        "whether autocast is on": (
            partial(torch.is_autocast_enabled, "cpu"),
            partial(torch.set_autocast_enabled, "cpu"),
        ),
        "whether anomalies are detected": (
            torch.is_anomaly_enabled,
            torch.autograd.set_detect_anomaly,
        ),
        "the precision of float32 products": (
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
        ),
        "the number of threads": (torch.get_num_threads, torch.set_num_threads),
        "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "whether gradients are recorded": (torch.is_grad_enabled, torch.set_grad_enabled),
        "whether algorithms are deterministic, or warn": (
            torch.get_deterministic_debug_mode,
            torch.set_deterministic_debug_mode,
        ),
        "the dtype of autocast": (
            partial(torch.get_autocast_dtype, "cpu"),
            partial(torch.set_autocast_dtype, "cpu"),
        ),
        "whether sparse tensors are checked": (
            torch.sparse.check_sparse_tensor_invariants.is_enabled,
            _check_sparse_tensors,
        ),
        "whether a warning is given each time": (
            torch.is_warn_always_enabled,
            torch.set_warn_always,
        ),
        "NumPy's handling of errors": (np.geterr, lambda kinds: np.seterr(**kinds)),
        "whether garbage is collected": (gc.isenabled, _collect),
    }


def _set_random_state(state: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _numpy_state() -> Any:
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002 -- the one that all share
    return state[0], state[1].tobytes(), *state[2:]


def _set_numpy_state(state: Any) -> None:
    name, words, *rest = state
    np.random.set_state((name, np.frombuffer(words, np.uint32), *rest))  # noqa: NPY002


def _check_sparse_tensors(checked: bool) -> None:
    invariants: Any = torch.sparse.check_sparse_tensor_invariants
    (invariants.enable if checked else invariants.disable)()


def _collect(collected: bool) -> None:
    (gc.enable if collected else gc.disable)()


def _flushes() -> bool:
    return not bool((torch.tensor(SUBNORMAL, dtype=torch.float32, device="cpu") * 1.0).item())


def _state() -> State:
    return {name: read() for name, (read, _) in _settings().items()}


def _advance() -> None:
    """Draw from each generator, so that one shows which a call seeds as the last call did."""
    random.random()
    np.random.random()  # noqa: NPY002 -- the one that all share
    torch.rand(1, device="cpu")


def _restore(state: State) -> None:
    """Put back what is not as it was; some of it takes seconds to set, Inductor being told."""
    for name, (read, write) in _settings().items():
        if read() != state[name]:
            write(state[name])


def _as_it_was(lab: Lab) -> Iterator[Trial]:
    _warm_up(lab)
    for size, width in lab.few(SIZES, slice(1, 2)):
        ids = lab.draw.integers(0, 5, size)
        for options in lab.choices(ids, 6, "padding_idx", "scale_grad_by_freq", "max_norm"):
            lookup = Lookup(ids, lab.table(6, width), options, lab.profile)
            for recorded in {"gradient" in lab.able, False}:
                yield partial(_passes, lab, lookup, recorded=recorded)
        if size == SIZES[1][0]:
            yield from _in_other_states(lab, ids, width)


def _in_other_states(lab: Lab, ids: Array, width: int) -> Iterator[Trial]:
    """Let what torch is set to be unusual, or a call be refused."""
    if lab.device != "cpu" or lab.backend.compiled:
        return  # the settings are the CPU's, and a refused call may cost another device
    yield from _while_flushed(lab, ids, width)
    for options in _choices(lab, ids, "padding_idx", "scale_grad_by_freq", "max_norm"):
        lookup = Lookup(ids, lab.table(6, width) * np.float32(2), options, lab.profile)
        yield partial(_passes, lab, lookup, recorded="gradient" in lab.able, unusual=True)
    for options in _choices(lab, ids, "max_norm"):
        lookup = Lookup(ids, lab.table(6, width) * np.float32(2), options, lab.profile)
        for dtype in ("float32", "float64"):
            if dtype in lab.backend.known_dtypes:
                yield partial(_refused, lab, lookup.into(lookup.table.astype(dtype)))


def _choices(lab: Lab, ids: Array, *names: str) -> Iterator[dict[str, Any]]:
    yield from lab.choices(ids, 6, *names)
    if "sparse" in lab.able:
        yield {"sparse": True}


def _while_flushed(lab: Lab, ids: Array, width: int) -> Iterator[Trial]:
    """Let subnormal numbers be flushed to zero, as audio and old models ask for."""
    names = [name for name in TABLE_DTYPES if name in lab.backend.known_dtypes]
    choices = _choices(lab, ids, "padding_idx", "scale_grad_by_freq", "max_norm")
    for name, options in product(names, choices):
        lookup = Lookup(ids, lab.table(6, width) * np.float32(2), options, lab.profile)
        recorded = "gradient" in lab.able
        yield partial(_passes, lab, lookup, recorded=recorded, flushed=True, dtype=name)


def _warm_up(lab: Lab) -> None:
    """Let the target import what it imports at its first call, which may draw names or seeds."""
    ids = lab.draw.integers(0, 5, 2)
    state = _state()
    lookup = Lookup(ids, lab.table(6, 3), {}, lab.profile)
    with suppress(Exception, SystemExit):  # a trial tells
        lab.bind(lookup)(lab.tensor(ids), lab.tensor(lookup.table))
    _restore(state)


def _passes(
    lab: Lab,
    lookup: Lookup,
    *,
    recorded: bool,
    unusual: bool = False,
    flushed: bool = False,
    dtype: str = "float32",
) -> Claims:
    """Compare torch before and after both passes."""
    weight, ids = lab.tensor(lookup.table).to(getattr(torch, dtype)), lab.tensor(lookup.ids)
    weight.requires_grad_(recorded)
    upstream = lab.tensor(lab.upstream(*lookup.shape))

    def call() -> None:
        out = lab.bind(lookup)(ids, weight)
        if weight.requires_grad:
            torch.autograd.backward([out], [upstream.to(out.dtype)])

    usual = _state()
    try:
        with torch_threads(2):  # with one there would be nothing to take away
            if unusual:
                torch.set_autocast_enabled("cpu", True)
                torch.autograd.set_detect_anomaly(True, check_nan=False)
                torch.set_autocast_dtype("cpu", torch.float16)
                torch.set_deterministic_debug_mode("warn")
                _check_sparse_tensors(True)
            if flushed:
                torch.set_flush_denormal(True)
            told = f"{lookup}{', what torch is set to being unusual,' * unusual}"
            told += f", of {dtype}, subnormal numbers flushed to zero," * flushed
            claims = _unchanged(call, f"a call for {told}")
    finally:
        _restore(usual)
    yield from claims


def _refused(lab: Lab, lookup: Lookup) -> Claims:
    """Compare torch before and after a call that is refused."""
    bad = lab.tensor(np.append(lookup.ids, len(lookup.table)))
    weight = lab.tensor(lookup.table)

    def call() -> None:
        with suppress(Exception, SystemExit):  # another clause tells
            lab.bind(lookup)(bad, weight)

    what = f"a call for {lookup}, of {lookup.table.dtype}, refused for one more,"
    yield from _unchanged(call, what)


def _unchanged(call: Callable[[], None], what: str) -> list[Must]:
    """Compare torch before and after, and put it back, whoever changed it."""
    usual = _state()
    _advance()
    before = _state()
    try:
        call()
        after = _state()
    finally:
        _restore(usual)
    return [Must(after[name] == value, f"{what} changed {name}") for name, value in before.items()]


TORCH_STATE_PROBE: Final = probe_of(_CLAUSE, _as_it_was, "functional")
