"""What the checks of modules share: making one, and writing down what it does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, Final, TypeVar

import numpy as np

from embconform.backends.backend import Backend
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes import thrift
from embconform.conformance.probes.claims import Claim
from embconform.conformance.probes.modules.claims import Behaviour
from embconform.conformance.recording import plain
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

T = TypeVar("T")
ROWS: Final = 5
WIDTH: Final = 4
PADDING: Final = 1
IDS: Final = ((3, PADDING, 3), (0, PADDING, 3))
"""Row 3 three times and not in a run, padding twice; rows 2 and 4 not at all."""
FACTOR: Final = 2.0
"""What hooks, layers and parametrizations multiply by: a power of two, so that nothing rounds."""

_OPTION_SETS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"padding_idx": PADDING},
    {"padding_idx": 0},
    {"max_norm": 1.0},
    {"max_norm": 0.0},
    {"max_norm": 1.5, "norm_type": 1.0},
    {"scale_grad_by_freq": True},
    {"padding_idx": PADDING - ROWS, "sparse": True},
    {"padding_idx": 0, "max_norm": 2.0, "sparse": True},
    {"padding_idx": PADDING, "max_norm": 2.0, "scale_grad_by_freq": True},
)


@dataclass(frozen=True)
class Subject:
    """The module form of a backend, with what a check needs to draw.

    Attributes
    ----------
    backend : Backend
        With a module form.
    profile : Profile
    seed : int
    """

    backend: Backend
    profile: Profile
    seed: int

    @property
    def able(self) -> frozenset[str]:
        """Names of everything the backend can do."""
        return self.backend.able

    @property
    def dtype(self) -> torch.dtype:
        """float32, or the first dtype that the backend takes."""
        taken = self.backend.capabilities.dtypes
        name = "float32" if "float32" in taken else taken[0]
        found: torch.dtype = getattr(torch, name)
        return found

    def few(self, kinds: Sequence[T], which: slice = thrift.FIRST) -> Sequence[T]:
        """Give the kinds of a call, or some where each structure is compiled; see thrift.few."""
        return thrift.few(self.backend, kinds, which)

    def make(self, rows: int = ROWS, width: int = WIDTH, **options: Any) -> Any:
        """Call the constructor."""
        assert self.backend.module is not None
        return self.backend.module(rows, width, **options)

    def filled(self, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
        """Make a module whose table holds :meth:`values`."""
        wanted = dtype or self.dtype
        if wanted is not torch.get_default_dtype():
            options["dtype"] = wanted
        module = self.make(**options)
        module.weight.data.copy_(self.values(wanted))
        return module

    def values(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Draw a table of signed values without a zero, each row longer than any bound."""
        return torch.tensor(_drawn(self.seed)).to(dtype or self.dtype)

    def constant(self, value: float, *, trainable: bool, **options: Any) -> Behaviour:
        """Run a fresh module whose table holds one value everywhere."""
        module = self.filled(**options)
        module.weight.data.fill_(value)
        module.weight.requires_grad_(trainable)
        return run(module, self.ids())

    def ids(self, values: Any = IDS) -> torch.Tensor:
        """Make indices of a dtype that the backend takes."""
        taken = self.backend.capabilities.index_dtypes
        dtype = torch.int64 if "int64" in taken else getattr(torch, taken[0])
        return torch.tensor(values, dtype=dtype)

    def option_sets(self) -> Iterator[dict[str, Any]]:
        """List combinations of options that the backend has, from none to three.

        A compiled backend has none and the richest, since each combination costs seconds.
        """
        ends = slice(None, None, len(_OPTION_SETS) - 1)
        for options in self.few(_OPTION_SETS, ends):
            if options.keys() <= self.able:
                yield dict(options)

    def richest(self) -> dict[str, Any]:
        """Give the last of :meth:`option_sets`: with max_norm, where the backend has it."""
        *_, options = self.option_sets()
        return options


@lru_cache(maxsize=1)
def _drawn(seed: int) -> Array:
    """Draw in float32 what :meth:`Subject.values` copies, some thousand times a run."""
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(1, 2, (ROWS, WIDTH)) * rng.choice([-1.0, 1.0], (ROWS, WIDTH))
    return np.asarray(drawn, np.float32)


Claims = Iterator[Claim]
Check = Callable[[Subject], Claims]


def takes(make: Callable[..., Any], *names: str) -> bool:
    """Tell whether a constructor has arguments of these names."""
    parameters = inspect.signature(make).parameters.values()
    named = {parameter.name for parameter in parameters}
    return set(names) <= named or any(p.kind is p.VAR_KEYWORD for p in parameters)


def combinations_of(able: frozenset[str]) -> Iterator[dict[str, Any]]:
    """List every set of options that a backend has: each may come with a buffer or a parameter."""
    values = {
        "padding_idx": PADDING,
        "max_norm": 2.0,
        "norm_type": 1.0,
        "scale_grad_by_freq": True,
        "sparse": True,
    }
    has = [name for name in values if name in able]
    for number in range(len(has) + 1):
        for names in combinations(has, number):
            yield {name: values[name] for name in names}


def described(options: dict[str, Any]) -> str:
    """Write options as in a call, with the word that leads to them."""
    shown = ", ".join(f"{name}={value}" for name, value in options.items())
    return f" with {shown}" if shown else ""


def table_of(module: Any) -> Array:
    """Copy a module's table out."""
    return to_numpy(module.weight)


def upstream_of(output: torch.Tensor) -> torch.Tensor:
    """Make an upstream gradient for an output.

    It consists of small powers of two, so that its sums are exact in every dtype and order, and
    right modules differ in no bit.
    """
    steps = torch.arange(output.numel(), device=output.device).reshape(output.shape) % 3
    powers = torch.tensor([1.0, 2.0, 4.0], dtype=output.dtype, device=output.device)
    return powers[steps]


def gradient_of(module: Any) -> Behaviour:
    """Write down what can be seen of a module's gradient."""
    gradient = module.weight.grad
    return {
        "the layout of the gradient": str(gradient.layout),
        "the dtype of the gradient": str(gradient.dtype),
        "the gradient": to_numpy(gradient.to_dense()),
    }


def run(module: Any, ids: torch.Tensor) -> Behaviour:
    """Look up, go backward where that is possible, and write down all that can be seen.

    Parameters
    ----------
    module : torch.nn.Module
    ids : torch.Tensor

    Returns
    -------
    dict
        A behaviour.
    """
    module.weight.grad = None
    output = module(ids)
    seen: Behaviour = {
        "the output": to_numpy(output),
        "the dtype of the output": str(output.dtype),
        "requires_grad of the output": plain(output.requires_grad),
        "requires_grad of the table": plain(module.weight.requires_grad),
    }
    if output.requires_grad:
        output.backward(upstream_of(output))
    if module.weight.grad is not None:
        seen |= gradient_of(module)
    module.weight.grad = None
    return {**seen, "the table after the call": table_of(module)}


def serve(module: Any, ids: torch.Tensor) -> Behaviour:
    """Look up as a trained model does."""
    with torch.no_grad():
        return run(module, ids)


def refuses(module: Any, ids: torch.Tensor) -> bool:
    """Tell whether a module raises; elsewhere than on a CPU that may cost the device."""
    if module.weight.device.type != "cpu":
        return False
    try:
        run(module, ids)
    except Exception:
        return True
    return False
