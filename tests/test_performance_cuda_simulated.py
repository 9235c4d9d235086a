"""The CUDA clock takes the device's time: on a simulated device, where the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch
from simulated_device import API_NS, SimulatedDevice

from embconform.performance.cuda import ESCAPED_NS, CudaTimer, Probe
from embconform.performance.passes import Work

IDS = [torch.zeros(1, dtype=torch.int64)]
GAP = 2 * API_NS
"""What the events themselves take, at most."""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SimulatedDevice:
    made = SimulatedDevice()
    made.install(monkeypatch)
    return made


def work(run: Callable[[], Any], before: Callable[[], Any] | None = None) -> Work:
    return Work(lambda _: run(), (lambda _: before()) if before else None, IDS[0])


@pytest.mark.parametrize("launching", [0, 5_000, 80_000, 2_000_000])
def test_launching_is_not_in_the_time(device: SimulatedDevice, launching: int) -> None:
    def run() -> None:
        device.launch(700, launching)
        device.launch(800, launching)

    clock = CudaTimer()
    assert clock.block(work(run), IDS, 10, 0).ns == pytest.approx(1_500, abs=GAP)
    assert (clock.late, clock.escaped) == (0, 0)


def test_a_gate_that_opens_too_soon_is_told(device: SimulatedDevice) -> None:
    clock = CudaTimer()
    measured, _ = clock.call(work(lambda: device.launch(700, 900_000)), IDS[0], Probe(0, False))
    assert measured > 700 + GAP
    assert clock.late == 1


def test_waiting_for_the_host_is_in_the_time(device: SimulatedDevice) -> None:
    def run() -> None:
        device.launch(10_000)
        device.synchronize()
        device.host += 25_000
        device.launch(3_000)

    assert CudaTimer().block(work(run), IDS, 4, 0).ns >= 10_000 + 25_000 + 3_000


def test_emptying_the_cache_and_getting_ready_are_not_in_the_time(device: SimulatedDevice) -> None:
    clock = CudaTimer()
    clock._evict = device.evict()
    prepared = work(lambda: device.launch(900, 9_000), lambda: device.launch(300_000))
    assert clock.block(prepared, IDS, 5, 0).ns == pytest.approx(900, abs=GAP)


def test_work_on_another_stream_is_in_the_time(device: SimulatedDevice) -> None:
    """It would hide behind the gate: it starts while the current stream still spins."""
    clock = CudaTimer()
    found = clock.block(work(lambda: device.launch_aside(400_000)), IDS, 10, 0)
    assert found.ns >= 400_000
    assert clock.escaped == 10


def test_work_on_another_stream_beyond_the_gate_is_in_the_time(device: SimulatedDevice) -> None:
    """A target that escapes only where it isn't probed is seen where it outlasts the events."""
    clock = CudaTimer()
    escaping = work(lambda: device.launch_aside(5_000_000))
    measured, _ = clock.call(escaping, IDS[0], Probe(5_000, False))
    assert measured >= 4_500_000
    assert clock.escaped == 1


@pytest.mark.parametrize("every", [2, 3, 4])
def test_a_host_that_is_held_up_now_and_then_is_no_escape(
    device: SimulatedDevice, every: int
) -> None:
    waits = count()

    def wait() -> None:
        device.host += 3 * ESCAPED_NS * (next(waits) % every == 0)

    measured = Work(lambda _: device.launch(2_000), None, IDS[0], wait)
    clock = CudaTimer()
    assert clock.block(measured, IDS, 20, 0).ns == pytest.approx(2_000, abs=GAP)
    assert clock.escaped == 0
    assert clock.cleared > 3


def test_a_host_that_is_always_slow_to_wait_is_no_escape(device: SimulatedDevice) -> None:
    device.wait_ns = 2 * ESCAPED_NS
    clock = CudaTimer()
    assert clock.block(work(lambda: device.launch(2_000)), IDS, 5, 0).ns == pytest.approx(
        2_000, abs=GAP
    )
    assert (clock.escaped, clock.cleared) == (0, 0)


def test_work_on_another_stream_is_seen_by_a_host_that_is_held_up(device: SimulatedDevice) -> None:
    waits = count()

    def wait() -> None:
        device.host += 3 * ESCAPED_NS * (next(waits) % 3 == 0)

    escaping = Work(lambda _: device.launch_aside(600_000), None, IDS[0], wait)
    clock = CudaTimer()
    assert clock.block(escaping, IDS, 10, 0).ns >= 600_000
    assert clock.escaped == 10
    assert clock.cleared == 0


def test_a_repeated_call_finds_what_the_first_found(device: SimulatedDevice) -> None:
    """What must be done before each call is done before repeated ones."""
    ready, stalls = [0], [3 * ESCAPED_NS] * 3

    def before(_: Any) -> None:
        ready[0] += 1

    def run(_: Any) -> None:
        assert ready[0] == 1
        ready[0] = 0
        device.launch(2_000)

    def wait() -> None:
        device.host += stalls.pop() if stalls else 0

    clock = CudaTimer()
    clock.block(Work(run, before, IDS[0], wait), IDS, 2, 0)
    assert clock.cleared == 1


def test_the_gate_is_as_long_as_launching_needs(device: SimulatedDevice) -> None:
    clock = CudaTimer()
    clock.block(work(lambda: device.launch(500, 1_000)), IDS, 1, 0)
    short, device.spun = device.spun, 0.0
    clock.block(work(lambda: device.launch(500, 1_000_000)), IDS, 1, 0)
    assert device.spun > 5 * short
