"""Run a case on an embedding and write down everything that can be seen. The torch side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from embconform.backends.backend import Backend
from embconform.conformance import marker
from embconform.conformance.cases.case import (
    FROZEN,
    Backward,
    Call,
    Case,
    ClearGradient,
    DoubleBackward,
    GradMode,
    Placed,
    WriteIndices,
    WriteWeight,
    keyword_options,
)
from embconform.conformance.cases.layouts import Laid, lay_out
from embconform.conformance.lazy_torch import torch
from embconform.conformance.outcome import (
    GradientSeen,
    MemorySeen,
    Outcome,
    Raised,
    StepSeen,
    TensorSeen,
    raised_from,
)
from embconform.conformance.settling import Settling
from embconform.reference.dtypes import Array, bits


@cache
def _carriers() -> dict[torch.dtype, tuple[torch.dtype, Any]]:
    """Name the integers that carry the bits of floats which only one of torch and NumPy knows."""
    return {
        torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
        torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
        torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
    }


@cache
def _by_numpy() -> dict[np.dtype[Any], tuple[torch.dtype, torch.dtype]]:
    return {np.dtype(numpy): (carrier, torch_) for torch_, (carrier, numpy) in _carriers().items()}


def to_torch(array: Array) -> torch.Tensor:
    """Make a tensor that shares the memory of a contiguous array, bfloat16 and float8 included."""
    if array.dtype in _by_numpy():
        carrier, dtype = _by_numpy()[array.dtype]
        return torch.from_numpy(array.view(f"i{array.dtype.itemsize}")).view(carrier).view(dtype)
    return torch.from_numpy(array)


def to_numpy(tensor: torch.Tensor) -> Array:
    """Copy a tensor's values out, bit for bit.

    The clone comes first: ``numpy()`` marks the memory that it exports as not resizable, and torch
    resizes a sparse gradient when it adds to it.
    """
    with torch.no_grad():
        plain = tensor.detach().clone(memory_format=torch.contiguous_format).cpu()
        if plain.dtype in _carriers():
            carrier, numpy = _carriers()[plain.dtype]
            return plain.view(carrier).numpy().view(numpy)
        return plain.numpy()


class _Tensor:
    """A tensor laid out in a buffer of its own."""

    def __init__(self, placed: Placed, device: str) -> None:
        self.laid: Laid = lay_out(placed)
        # torch owns the memory, as it does outside a test: NumPy's can't be resized
        self.base = to_torch(self.laid.base).clone().to(device)
        self.tensor = self.base.as_strided(self.laid.shape, self.laid.strides, self.laid.offset)

    def read(self) -> tuple[Array, bool]:
        """Read the values, and whether the memory around them kept its bits."""
        base = to_numpy(self.base)
        return np.array(self.laid.view(base), copy=True), self.laid.outside_intact(base)

    def kept(self) -> tuple[bool, bool]:
        """Tell whether the values kept their bits, and whether the memory around them did."""
        values, around = self.read()
        return np.array_equal(bits(values), bits(self.laid.view(self.laid.base))), around


def grad_context(mode: GradMode) -> AbstractContextManager[Any]:
    """Enter a grad mode; that the table is frozen is for the caller."""
    contexts: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "no_grad": torch.no_grad,
        "inference": torch.inference_mode,
        "served": torch.inference_mode,
    }
    return contexts.get(mode, nullcontext)()


@contextmanager
def _deterministic() -> Iterator[None]:
    """Ask for deterministic algorithms.

    ``torch.use_deterministic_algorithms`` tells Inductor as well, and imports it for that, which
    takes seconds; the debug mode sets the same flag and does not.
    """
    before = torch.get_deterministic_debug_mode()
    if "torch._inductor.config" in sys.modules:
        torch.use_deterministic_algorithms(True)
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        if "torch._inductor.config" in sys.modules:
            torch.use_deterministic_algorithms(False)
        torch.set_deterministic_debug_mode(before)


class Observer:
    """Runs the steps of one case."""

    def __init__(self, backend: Backend, case: Case, device: str) -> None:
        self.backend, self.case, self.device = backend, case, device
        self.settle, self.ruined = Settling(backend, device), False
        self.weight = _Tensor(case.weight, device)
        self.leaf = self.weight.tensor.detach()
        self.leaf.requires_grad_(case.mode not in FROZEN and self.leaf.is_floating_point())
        self.indices: dict[int, _Tensor] = {}
        self.outputs: dict[int, torch.Tensor] = {}
        self.steps: list[StepSeen] = []
        self.embed: Callable[[torch.Tensor], Any] | None = None

    def run(self) -> Outcome:
        """Take the steps up to the first that raises without having to."""
        with _deterministic() if self.case.deterministic else nullcontext():
            return self._run()

    def _run(self) -> Outcome:
        for position, step in enumerate(self.case.steps):
            marker.mark(position)
            seen = self._take(position, step)
            self.steps.append(seen)
            if seen.raised and not (isinstance(step, Call) and step.must_raise):
                break
        return Outcome(tuple(self.steps), {} if self.ruined else self._final_outputs())

    def _final_outputs(self) -> dict[int, Array]:
        found = {}
        for position, output in self.outputs.items():
            with suppress(Exception):  # one that can't be read any more is missing
                found[position] = to_numpy(output)
        return found

    def _take(self, position: int, step: Any) -> StepSeen:
        extra: dict[str, Any] = {}
        raised = None
        try:
            match step:
                case Call():
                    extra = self._call(position, step)
                case Backward():
                    extra = self._backward(step)
                case DoubleBackward():
                    extra = {"gradient": self._double_backward(step)}
                case ClearGradient():
                    self.leaf.grad = None
                case WriteWeight():  # through .data, as a loader may: no version counter moves
                    self.leaf.data.copy_(to_torch(step.values.copy()))
                case WriteIndices():
                    given = self.indices[step.call].tensor
                    given = given.data if self.case.is_silent(position) else given
                    given.copy_(to_torch(step.values.copy()))
            self.settle()
        except (Exception, SystemExit) as error:
            raised = raised_from(error)
            self.ruined = self.ruined or self.settle.lost()
        if self.ruined:
            return StepSeen(raised, self._known_memory(), **extra, ruined=True)
        unread = self._read_gradient(extra) if isinstance(step, Backward) else None
        return StepSeen(raised or unread, self._memory(), **extra)

    def _read_gradient(self, extra: dict[str, Any]) -> Raised | None:
        try:
            extra["gradient"] = read_gradient(self.leaf.grad)
        except Exception as error:  # a tensor that nobody can read, as a transform leaves it
            return raised_from(error)
        return None

    def _known_memory(self) -> MemorySeen:
        """Give what was last read, or written: the device can't be read any more."""
        if self.steps:
            return self.steps[-1].memory
        return MemorySeen(self.case.weight.values, True, {}, True)

    def _memory(self) -> MemorySeen:
        weight, weight_around = self.weight.read()
        seen = {position: tensor.read() for position, tensor in self.indices.items()}
        return MemorySeen(
            weight,
            weight_around,
            {position: values for position, (values, _) in seen.items()},
            all(around for _, around in seen.values()),
        )

    def _call(self, position: int, step: Call) -> dict[str, Any]:
        if step.reuse is None:
            self.indices[position] = _Tensor(step.indices, self.device)
            indices = self.indices[position].tensor
        else:
            indices = self.indices[step.reuse].tensor
        if self.embed is None:
            self.embed = self._make()
        with grad_context(step.context or self.case.mode):
            output = self.embed(indices)
        if not isinstance(output, torch.Tensor):
            return {"returned": type(output).__name__}
        shares = self._shared_memory(output, indices)
        values = to_numpy(output)  # a tensor that can't be read raises here, and is not kept
        self.outputs[position] = output
        apart = "" if output.device == self.leaf.device else str(output.device)
        return {
            "output": TensorSeen(values, str(output.dtype).removeprefix("torch."), apart),
            "requires_grad": output.requires_grad,
            "shares": shares,
        }

    def _make(self) -> Callable[[torch.Tensor], Any]:
        options = keyword_options(self.case.options)
        if self.case.entry == "functional":
            functional = self.backend.functional
            assert functional is not None
            return lambda indices: functional(indices, self.leaf, **options)
        assert self.backend.module is not None
        rows, width = self.leaf.shape
        module = self.backend.module(rows, width, dtype=self.leaf.dtype, **options)
        module.to(self.device)
        parameter = torch.nn.Parameter(self.leaf, requires_grad=self.leaf.requires_grad)
        module.weight = parameter
        self.leaf = parameter
        return module  # type: ignore[no-any-return]

    def _shared_memory(self, output: torch.Tensor, indices: torch.Tensor) -> tuple[str, ...]:
        others = {"weight": self.leaf, "indices": indices}
        others |= {f"output of step {k}": earlier for k, earlier in self.outputs.items()}
        address = output.untyped_storage().data_ptr()
        steps = zip(output.shape, output.stride(), strict=True)
        itself = output.numel() > 0 and any(size > 1 and not step for size, step in steps)
        return ("itself",) * itself + tuple(
            name
            for name, other in others.items()
            if output.numel() and other.untyped_storage().data_ptr() == address
        )

    def _upstream(self, placed: Placed) -> _Tensor:
        return _Tensor(placed, self.device)

    def _backward(self, step: Backward) -> dict[str, Any]:
        outputs = [self.outputs[call] for call in step.calls]
        given = [self._upstream(placed) for placed in step.upstream]
        upstream = [each.tensor for each in given]
        torch.autograd.backward(outputs, upstream, retain_graph=step.retain_graph)
        self.settle()
        kept, around = zip(*(each.kept() for each in given), strict=True)
        return {"upstream_kept": kept, "outside_upstream": around}

    def _double_backward(self, step: DoubleBackward) -> GradientSeen | None:
        upstream = self._upstream(step.upstream).tensor.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(
            self.outputs[step.call], self.leaf, upstream, create_graph=True
        )
        direction = to_torch(step.direction).to(self.device)
        (second,) = torch.autograd.grad((gradient * direction).sum(), upstream)
        return read_gradient(second)


def read_gradient(gradient: torch.Tensor | None) -> GradientSeen | None:
    """Copy a gradient out, dense or sparse, without coalescing it."""
    if gradient is None:
        return None
    layout = str(gradient.layout).removeprefix("torch.")
    common = (layout, tuple(gradient.shape), str(gradient.dtype).removeprefix("torch."))
    if gradient.layout is torch.sparse_coo:
        return GradientSeen(
            *common,
            rows=to_numpy(gradient._indices())[0],
            entries=to_numpy(gradient._values()),
            sparse_dim=gradient.sparse_dim(),
            coalesced=gradient.is_coalesced(),
        )
    if gradient.layout is torch.strided:
        return GradientSeen(*common, dense=to_numpy(gradient))
    return GradientSeen(*common)


def observe(backend: Backend, case: Case, device: str = "cpu") -> Outcome:
    """Run a case.

    Parameters
    ----------
    backend : Backend
    case : Case
    device : str

    Returns
    -------
    Outcome
    """
    return Observer(backend, case, device).run()
