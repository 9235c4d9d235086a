"""What the checks of transforms share: lookups, what is right for them, and how they are run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embconform.backends.backend import Backend
from embconform.conformance.finding import Finding, equal, same_bits, within
from embconform.conformance.judging import Ruling
from embconform.conformance.observe import to_numpy, to_torch
from embconform.conformance.outcome import raised_from
from embconform.reference.bounds import gamma
from embconform.reference.clause import Profile, registry
from embconform.reference.dtypes import Array, format_of
from embconform.reference.oracle import Options, bound_rows

F64 = NDArray[np.float64]
Function = Callable[[Tensor, Tensor], Any]
Trial = Callable[[], Finding | None]
MAX_NORM: Final = 1.0
_FLOAT32: Final = format_of("float32")


@dataclass(frozen=True, eq=False)
class Lookup:
    """Indices, a table and options, and what torch-free arithmetic makes of them.

    Attributes
    ----------
    ids : ndarray of int64
    table : ndarray of float32
        Of shape (V, D); no zero rows.
    options : dict
        Keyword arguments of the embedding.
    profile : Profile
    """

    ids: Array
    table: Array
    options: dict[str, Any]
    profile: Profile

    def __str__(self) -> str:
        """Name it in a message."""
        words = [f"indices {self.ids.tolist()}", f"a table of {len(self.table)} rows"]
        return ", ".join([*words, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def padded(self) -> NDArray[np.bool_]:
        """Which indices are padding."""
        padding = self.options.get("padding_idx")
        if padding is None:
            return np.zeros(self.ids.shape, np.bool_)
        return np.asarray(self.ids == padding % len(self.table))

    def rows(self, table: Array | None = None) -> Array:
        """Look up, in the table itself or in another of its shape."""
        found = (self.table if table is None else table)[self.ids]
        if self.profile is Profile.TEXTBOOK:
            found = np.where(self.padded[..., None], found.dtype.type(0), found)
        return np.asarray(found)

    def gradient(self, upstream: Array) -> tuple[F64, F64]:
        """Give the gradient of the table and how far a right one may be from it.

        Upstream gradients are small whole numbers, so only a division by counts can round.
        """
        height, width = self.table.shape
        flat, terms = self.ids.reshape(-1), upstream.reshape(-1, width).astype(np.float64)
        total, size = np.zeros((2, height, width))
        kept = ~self.padded.reshape(-1)
        np.add.at(total, flat[kept], terms[kept])
        if not self.options.get("scale_grad_by_freq"):
            return total, size
        counts = np.bincount(flat, minlength=height).clip(1)[:, None]
        np.add.at(size, flat[kept], np.abs(terms[kept]))
        return total / counts, size / counts * gamma(flat.size + 3, _FLOAT32.unit_roundoff)


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

    def tensor(self, array: Array) -> Tensor:
        """Copy an array to the device."""
        return to_torch(np.array(array, order="C")).to(self.device)

    def leaf(self, array: Array) -> Tensor:
        """Copy an array to the device and let it require grad."""
        return self.tensor(array).requires_grad_()

    def table(self, *shape: int) -> Array:
        """Draw normal numbers of all mantissa bits, the first of them -0."""
        values = self.draw.standard_normal(shape).astype(np.float32)
        values.flat[0] = -0.0
        return values

    def upstream(self, *shape: int) -> Array:
        """Draw whole numbers, none of them 0."""
        values = self.draw.integers(1, 9, shape) * self.draw.choice([-1, 1], shape)
        return np.asarray(values, np.float32)

    def choices(self, ids: Array, height: int, *names: str) -> Iterator[dict[str, Any]]:
        """List no option, then those of `names` that the backend has, then all of these."""
        hot = int(np.bincount(ids.reshape(-1)).argmax())
        values = {"padding_idx": hot, "scale_grad_by_freq": True, "max_norm": MAX_NORM}
        has = [name for name in names if name in self.able]
        yield {}
        yield from ({name: values[name]} for name in has)
        if "padding_idx" in has:
            if self.profile is Profile.TORCH:  # the document's mask knows no negative ones
                values["padding_idx"] = hot - height
            yield {name: values[name] for name in has}

    @property
    def able(self) -> frozenset[str]:
        """What backend and profile have."""
        beyond = {"scale_grad_by_freq", "sparse"} if self.profile is Profile.TEXTBOOK else set()
        return self.backend.able - beyond

    def lookups(self, *names: str) -> Iterator[Lookup]:
        """Make lookups: unequal counts, two dimensions, none, and what is drawn."""
        drawn = self.draw.integers(0, 6, self.draw.integers(2, 5, self.draw.integers(1, 4)))
        all_ids = [np.array([2, 0, 2, 1, 2]), np.array([[3, 1], [3, 3]]), np.array(1), drawn]
        for ids in all_ids[: 1 if self.backend.compiled else None]:  # each costs seconds there
            height, width = int(ids.max()) + 2, int(self.draw.integers(1, 6))
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


def compare(what: str, got: Any, exact: Array, bound: F64 | None = None) -> Finding | None:
    """Compare a tensor with an array: dtype, shape, and bits or values within a bound.

    Parameters
    ----------
    what : str
        Names the tensor and the call in messages.
    got : object
    exact : ndarray
    bound : ndarray of float64, optional
        None for equal bits.

    Returns
    -------
    Finding or None
    """
    if not isinstance(got, Tensor):
        return Finding(f"{what} is of type {type(got).__name__}, must be a tensor")
    dtype = exact.dtype.name if bound is None else "float32"
    found = equal("dtype", str(got.dtype).removeprefix("torch."), dtype, f"the dtype of {what}")
    found = found or equal("shape", tuple(got.shape), exact.shape, f"the shape of {what}")
    if found is None and bound is None:
        found = same_bits(what, to_numpy(got), exact)
    elif found is None and bound is not None:
        found = within(what, to_numpy(got), exact, bound, np.ones(exact.shape, np.bool_))
    return found and replace(found, check=None)


def compare_bounded(what: str, lookup: Lookup, output: Any, after: Any) -> Finding | None:
    """Compare a lookup under max_norm, and the table after it.

    Parameters
    ----------
    what : str
        Names the call in messages.
    lookup : Lookup
    output, after : object
        The output and the table as tensors.

    Returns
    -------
    Finding or None
    """
    options = Options(**lookup.options)
    limit = bound_rows(lookup.table, options, lookup.profile, _FLOAT32)
    values, bound = limit.values[lookup.ids], limit.bound[lookup.ids]
    whole, slack = lookup.table.astype(np.float64), np.zeros(lookup.table.shape)
    if lookup.profile is Profile.TEXTBOOK:
        values, bound = (np.where(lookup.padded[..., None], 0.0, a) for a in (values, bound))
    else:
        named = np.unique(lookup.ids)
        whole[named], slack[named] = limit.values[named], limit.bound[named]
    found = compare(f"the output of {what}", output, values, bound)
    return found or compare(f"the table after {what}", after, whole, slack)


def must_raise(what: str, call: Callable[[], Any]) -> Finding | None:
    """See that a call raises."""
    try:
        got = call()
    except Exception:
        return None
    seen = str(got.tolist()) if isinstance(got, Tensor) else type(got).__name__
    seen = seen if len(seen) < 100 else f"{seen[:99]}…"
    return Finding(f"{what} gave {seen}, must raise", seen, "an exception")


def stacked(arrays: Sequence[Array]) -> Array:
    """Stack along a new first axis."""
    return np.stack(list(arrays))


Check = Callable[[Lab], Iterator[Trial]]


def run_check(
    judged: tuple[str, Check], backend: Backend, profile: Profile, seed: int, device: str
) -> list[Ruling]:
    """Run every trial of a check, if profile and backend have its clause.

    Parameters
    ----------
    judged : tuple of str and callable
        A clause's id and its check.
    backend : Backend
    profile : Profile
    seed : int
    device : str

    Returns
    -------
    list of Ruling
        One for each trial; an exception is a refusal.
    """
    clause, check = judged
    entry = registry()[clause]
    able = backend.able | {"float32"} if "float32" in backend.known_dtypes else backend.able
    if profile not in entry.profiles or not entry.needs | {"float32"} <= able:
        return []
    lab, rulings = (
        Lab(backend, profile, device, np.random.default_rng([seed, *clause.encode()])),
        [],
    )
    for trial in check(lab):
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            started = perf_counter()
            finding = _outcome(trial)
        rulings.append(Ruling(clause, finding, perf_counter() - started))
    return rulings


def _outcome(trial: Trial) -> Finding | None:
    try:
        return trial()
    except (Exception, SystemExit) as error:
        said = raised_from(error)
        return Finding(f"raised {said}", str(said), "no exception", refused=True)
