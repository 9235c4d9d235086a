"""Lookups on CUDA streams: late data, two at a time, captured and replayed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.transforms.claims import GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import Check, Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read
from embconform.reference.dtypes import Array

LATE: Final = 50_000_000
"""Cycles for which a stream is held: some 30 ms, in which the host can do all its launches."""
REPLAYS: Final = 3
SIZES: Final = ((7, 6, 3), (4099, 300, 64))
"""Numbers of indices, rows and columns: few, and more than ATen's small kernels take."""


def _lookups(lab: Lab, *sizes: tuple[int, int, int]) -> Iterator[Lookup]:
    for number, height, width in lab.few(sizes):
        ids = lab.draw.integers(0, height, number)
        for options in lab.choices(ids, height, "padding_idx", "scale_grad_by_freq"):
            yield Lookup(ids, lab.table(height, width), options, lab.profile)


def _another(lab: Lab, lookup: Lookup) -> Lookup:
    """Draw other data for the same buffers; padding stays where it is."""
    ids = lab.draw.integers(0, len(lookup.table), lookup.ids.shape)
    return Lookup(ids, lab.table(*lookup.table.shape), lookup.options, lookup.profile)


def _told(lookup: Lookup) -> str:
    """Name a lookup in a message."""
    options = "".join(f", {name}={value}" for name, value in lookup.options.items())
    return f"{lookup.ids.size} indices into a table of {len(lookup.table)} rows{options}"


@dataclass
class _Buffers:
    """What a call reads, and what it gave: tensors that stay where they are."""

    lab: Lab
    lookup: Lookup
    upstream: Array

    def __post_init__(self) -> None:
        lab, lookup = self.lab, self.lookup
        self.ids, self.weight = lab.tensor(lookup.ids), lab.tensor(lookup.table)
        self.weight.requires_grad_("gradient" in lab.able)
        self.given = lab.tensor(self.upstream)
        self.function = lab.bind(lookup)

    def write(self, ids: torch.Tensor, table: torch.Tensor, upstream: torch.Tensor) -> None:
        """Put other data in the buffers, on the current stream."""
        with torch.no_grad():
            self.ids.copy_(ids)
            self.weight.copy_(table)
            self.given.copy_(upstream)

    def clear(self) -> None:
        """Spoil the buffers, on the current stream."""
        with torch.no_grad():
            for each in (self.ids, self.weight, self.given):
                each.zero_()

    def run(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Look up, and go backward where that is possible."""
        output = self.function(self.ids, self.weight)
        rows = output.detach().clone()  # at once: a backward pass makes streams wait for each other
        if not self.weight.requires_grad:
            return rows, None
        (gradient,) = torch.autograd.grad(output, self.weight, self.given)
        return rows, gradient

    def warm_up(self) -> None:
        """Let everything be loaded, compiled and allocated: it would wait for the device."""
        for _ in range(2):
            self.run()
        torch.cuda.synchronize()


def _buffers(lab: Lab, lookup: Lookup) -> _Buffers:
    return _Buffers(lab, lookup, lab.upstream(*lookup.shape))


def _kept(seen: tuple[torch.Tensor, torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
    """Copy what a call gave, on the current stream."""
    return tuple(each.clone() for each in seen if each is not None)


def _claims(what: str, kept: tuple[torch.Tensor, ...], lookup: Lookup, upstream: Array) -> Claims:
    yield Rows(f"the output {what} for {_told(lookup)}", read(kept[0]), lookup)
    for each in kept[1:]:
        yield GradientOf(f"the gradient {what} for {_told(lookup)}", read(each), lookup, upstream)


def _stream() -> Any:
    make: Any = torch.cuda.Stream  # untyped
    return make()


def _held(*streams: Any) -> None:
    """Hold streams for a while, and let them go together."""
    holder, sleep = _stream(), cast("Any", torch.cuda._sleep)
    with torch.cuda.stream(holder):
        sleep(LATE)
    over = holder.record_event()
    for stream in streams:
        stream.wait_event(over)


# One stream


def _on_the_current_stream(lab: Lab) -> Iterator[Trial]:
    for lookup in _lookups(lab, SIZES[0]):
        for held in ("its own stream", "the default stream"):
            yield partial(_late, lab, lookup, held)


def _late(lab: Lab, lookup: Lookup, held: str) -> Claims:
    """Hold a stream; write to the buffers, call, copy and spoil the buffers on a side stream."""
    buffers, other = _buffers(lab, lookup), _another(lab, lookup)
    upstream = lab.upstream(*lookup.shape)
    data = lab.tensor(other.ids), lab.tensor(other.table), lab.tensor(upstream)
    side = _stream()
    with torch.cuda.stream(side):
        buffers.warm_up()
    _held(side if held == "its own stream" else torch.cuda.default_stream())
    with torch.cuda.stream(side):
        buffers.write(*data)
        kept = _kept(buffers.run())
        buffers.clear()
    torch.cuda.synchronize()
    yield from _claims(f"on a side stream, {held} being late,", kept, other, upstream)


# Two streams


def _at_once(lab: Lab) -> Iterator[Trial]:
    for lookup in _lookups(lab, *SIZES):
        yield partial(_both, lab, lookup)


def _both(lab: Lab, lookup: Lookup) -> Claims:
    """Hold two streams, put a call on each, and let them go together."""
    lookups = lookup, _another(lab, lookup)
    each = [_buffers(lab, one) for one in lookups]
    sides = [_stream() for _ in each]
    for side, buffers in zip(sides, each, strict=True):
        with torch.cuda.stream(side):
            buffers.warm_up()
    kept = []
    _held(*sides)
    for side, buffers in zip(sides, each, strict=True):
        with torch.cuda.stream(side):
            kept.append(_kept(buffers.run()))
    torch.cuda.synchronize()
    for number, (seen, one, buffers) in enumerate(zip(kept, lookups, each, strict=True), 1):
        yield from _claims(f"of stream {number} of two", seen, one, buffers.upstream)


# Graphs


def _captured(lab: Lab) -> Iterator[Trial]:
    for lookup in _lookups(lab, *SIZES):
        yield partial(_replayed, lab, lookup)


def _replayed(lab: Lab, lookup: Lookup) -> Claims:
    """Capture a call, then replay it on other data."""
    buffers, graph = _buffers(lab, lookup), torch.cuda.CUDAGraph()
    side = _stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a capture that fails leaves its stream the current one
        buffers.warm_up()
        with torch.cuda.graph(graph, stream=side):
            seen = buffers.run()
    for number in range(1, REPLAYS + 1):
        other, upstream = _another(lab, lookup), lab.upstream(*lookup.shape)
        buffers.write(lab.tensor(other.ids), lab.tensor(other.table), lab.tensor(upstream))
        graph.replay()
        yield from _claims(f"of replay {number}", _kept(seen), other, upstream)


CHECKS: dict[str, Check] = {
    "streams.current": _on_the_current_stream,
    "streams.concurrent": _at_once,
    "streams.capture": _captured,
}

STREAM_PROBES: Final = tuple(
    probe_of(clause, check, "functional", may_refuse=clause == "streams.capture")
    for clause, check in CHECKS.items()
)
