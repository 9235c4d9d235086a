"""What the checks of transforms share: how lookups are drawn, and how the target is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np

from embconform.backends.backend import Backend
from embconform.conformance.cases.case import FROZEN, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_torch
from embconform.conformance.probes import thrift
from embconform.conformance.probes.claims import (
    Claim,
    Record,
    Refused,
    Unfinished,
    judge_records,
    judge_refusable,
)
from embconform.conformance.probes.registry import Probe
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup, Rows
from embconform.conformance.recording import read, read_dense, record
from embconform.conformance.settling import Settling
from embconform.reference.clause import Profile, registry
from embconform.reference.dtypes import Array

Function: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], Any]"
T = TypeVar("T")
Claims = Iterator[Claim]
Trial = Callable[[], Claims]
MAX_NORM: Final = 1.0
FINE: Final = 1025
"""A factor of upstream gradients: bfloat16 rounds its multiples, and float32 sums exactly."""
WIDTH: Final = 5
"""Columns where each number of them is compiled; compilers make a program of its own for 1."""
MANY: Final = 70
"""Indices of the longest lookup: more than two warps have lanes, and no multiple of eight."""


FLOAT32: Final = 2**24
"""The first row whose successor float32 rounds."""


@dataclass(frozen=True)
class Lab:
    """Makes lookups and calls the backend.

    Attributes
    ----------
    backend : Backend
    profile : Profile
    device : str
    draw : numpy.random.Generator
    """

    backend: Backend
    profile: Profile
    device: str
    draw: np.random.Generator

    def few(self, kinds: Sequence[T], which: slice = thrift.FIRST) -> Sequence[T]:
        """Give the kinds of a call, or some where each structure is compiled; see thrift.few."""
        return thrift.few(self.backend, kinds, which)

    def fewest(self, kinds: Sequence[T], which: slice = thrift.FIRST) -> Sequence[T]:
        """Give the kinds of a call, or some where each size is compiled; see thrift.fewest."""
        return thrift.fewest(self.backend, kinds, which)

    def tensor(self, array: Array) -> torch.Tensor:
        """Copy an array to the device."""
        return to_torch(np.array(array, order="C")).to(self.device)

    def leaf(self, array: Array) -> torch.Tensor:
        """Copy an array to the device and let it require grad."""
        return self.tensor(array).requires_grad_()

    def table(self, *shape: int) -> Array:
        """Draw normal numbers of all mantissa bits, the first of them -0."""
        values = self.draw.standard_normal(shape).astype(np.float32)
        values.flat[0] = -0.0
        return values

    def table64(self, *shape: int) -> Array:
        """Draw normal numbers of float64."""
        return self.draw.standard_normal(shape)

    def small(self, *shape: int) -> Array:
        """Draw whole numbers up to 8, none of them 0."""
        values = self.draw.integers(1, 9, shape) * self.draw.choice([-1, 1], shape)
        return np.asarray(values, np.float32)

    def upstream(self, *shape: int) -> Array:
        """Draw whole numbers, none of them 0, that a float of 16 bits rounds."""
        return self.small(*shape) * np.float32(FINE)

    def choices(self, ids: Array, height: int, *names: str) -> Iterator[dict[str, Any]]:
        """List no option, then those of `names` that the backend has, then all of these.

        Where each size is compiled, only no option and all of them.
        """
        hot = int(np.bincount(ids.reshape(-1)).argmax())
        values = {"padding_idx": hot, "scale_grad_by_freq": True, "max_norm": MAX_NORM}
        has = [name for name in names if name in self.able]
        yield {}
        if not (self.backend.sizes_compiled and "padding_idx" in has):
            yield from ({name: values[name]} for name in has)
        if "padding_idx" in has:
            if self.profile is Profile.TORCH:  # the document's mask knows no negative ones
                values["padding_idx"] = hot - height
            yield {name: values[name] for name in has}

    @property
    def modes(self) -> tuple[GradMode, ...]:
        """What a table requires, and where it is looked up, as far as the backend knows it."""
        without: tuple[GradMode, ...] = ("no_grad", "served", "frozen")
        return (*without, "grad") if "gradient" in self.able else without

    def trains(self, mode: GradMode) -> bool:
        """Whether a table requires grad in a mode."""
        return mode not in FROZEN and "gradient" in self.able

    @property
    def able(self) -> frozenset[str]:
        """What backend and profile have."""
        beyond = {"scale_grad_by_freq", "sparse"} if self.profile is Profile.TEXTBOOK else set()
        return self.backend.able - beyond

    def lookups(self, *names: str) -> Iterator[Lookup]:
        """Make lookups: unequal counts, two dimensions, none, what is drawn, and many indices."""
        drawn = self.draw.integers(0, 6, self.draw.integers(2, 5, self.draw.integers(1, 4)))
        fixed = [np.array([2, 0, 2, 1, 2]), np.array([[3, 1], [3, 3]]), np.array(1)]
        all_ids = [*fixed, drawn, self.draw.integers(0, 9, MANY)]
        for ids in self.few(all_ids):
            height, width = int(ids.max()) + 2, int(self.draw.integers(1, 6))
            width = WIDTH if self.backend.compiled else width
            for options in self.choices(ids, height, *names):
                yield Lookup(ids, self.table(height, width), options, self.profile)

    def members(self, ids: Array, *names: str) -> Iterator[list[Lookup]]:
        """Make a lookup for each of the first axis of `ids`, each with a table of its own."""
        height = int(ids.max()) + 2
        for options in self.choices(ids, height, *names):
            yield [Lookup(row, self.table(height, 3), options, self.profile) for row in ids]

    def bind(self, lookup: Lookup) -> Function:
        """Make ``f(ids, weight)`` of the backend, by functional_call where it is a module only."""
        functional, options = self.backend.functional, lookup.options
        if functional is not None:
            return lambda ids, weight: functional(ids, weight, **options)
        module = self.module(lookup)
        for fill in (1.0, 0.0):
            probe = torch.full_like(module.weight, fill)
            seen = torch.func.functional_call(module, {"weight": probe}, (self.tensor(lookup.ids),))
        if bool(seen.detach().any()):
            raise RuntimeError("functional_call does not reach the table")
        return lambda ids, weight: torch.func.functional_call(module, {"weight": weight}, (ids,))

    def module(self, lookup: Lookup) -> Any:
        """Make the backend's module, holding the lookup's table."""
        assert self.backend.module is not None
        height, width = lookup.table.shape
        module = self.backend.module(height, width, dtype=torch.float32, **lookup.options)
        module.to(self.device)
        module.weight = torch.nn.Parameter(self.tensor(lookup.table))
        return module


def rows_and_gradient(
    lab: Lab, what: str, lookup: Lookup, ids: torch.Tensor, weight: torch.Tensor
) -> Claims:
    """Look up and differentiate, whatever the table's gradient was before."""
    out = lab.bind(lookup)(ids, weight)
    yield Rows(f"the output for {what}", read(out), lookup)
    upstream, weight.grad = lab.upstream(*lookup.shape), None
    torch.autograd.backward([out], [lab.tensor(upstream)])
    yield GradientOf(f"weight.grad for {what}", read_dense(weight.grad), lookup, upstream)


def members(lookups: Sequence[Lookup], name: str) -> Array:
    """Stack an attribute of lookups along a new first axis."""
    return np.stack([getattr(lookup, name) for lookup in lookups])


Check = Callable[[Lab], Iterator[Trial]]


def observe_check(
    observed: tuple[str, Check],
    backend: Backend,
    profile: Profile,
    seed: int,
    device: str,
    *,
    skip: int = 0,
) -> tuple[Record, ...] | Unfinished:
    """Run every trial of a check, if profile and backend have its clause.

    Parameters
    ----------
    observed : tuple of str and callable
        A clause's id and its check.
    backend : Backend
    profile : Profile
    seed : int
    device : str
    skip : int
        Trials that were run before, in another process.

    Returns
    -------
    tuple of Record or Unfinished
        One record for each trial.
    """
    clause, check = observed
    entry = registry()[clause]
    able = backend.able | {"float32"} if "float32" in backend.known_dtypes else backend.able
    if profile not in entry.profiles or not entry.needs | {"float32"} <= able:
        return ()
    lab = Lab(backend, profile, device, np.random.default_rng([seed, *clause.encode()]))
    settle, records = Settling(backend, device), list[Record]()
    for trial in islice(check(lab), skip, None):
        if records and records[-1].ruined:
            return Unfinished(tuple(records))
        records.append(record(clause, trial, settle))
    return tuple(records)


def probe_of(
    clause: str, check: Check, *needs: str, name: str | None = None, may_refuse: bool = False
) -> Probe:
    """Make the probe of a clause that a check alone decides.

    Parameters
    ----------
    clause : str
        Its id.
    check : callable
    *needs : str
        Capabilities without which it can't run.
    name : str, optional
        Of the probe; the clause's by default.
    may_refuse : bool
        Whether an exception is a refusal.
    """
    return Probe(
        name or clause,
        frozenset({clause}),
        frozenset(needs),
        partial(observe_check, (clause, check)),
        judge_refusable if may_refuse else judge_records,
    )


def compiled_already() -> Claims:
    """Make a trial that refuses what would have to be compiled anew for a compiled backend."""
    yield Refused("the backend is compiled already")
