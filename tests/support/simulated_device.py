"""A device with a host, streams and events, in which every time is known: for tests of clocks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import embconform.performance.cuda as under_test

API_NS = 1_000
"""What each call of the driver takes the host."""


class SimulatedDevice:
    """The host's clock, and until when the current stream and a side stream are busy; in ns."""

    def __init__(self) -> None:
        self.host = 0.0
        self.stream = 0.0
        self.side = 0.0
        self.spun = 0.0
        self.wait_ns = API_NS

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it in the place of torch.cuda and of the host's clock."""
        device = self

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                assert enable_timing
                self.at = 0.0

            def record(self) -> None:
                device.api()
                self.at = device.stream = max(device.stream, device.host)

            def query(self) -> bool:
                return self.at <= device.host

            def synchronize(self) -> None:
                device.host = max(device.host, self.at)

            def elapsed_time(self, other: Event) -> float:
                return (other.at - self.at) * 1e-6

        properties = SimpleNamespace(L2_cache_size=16)
        for name, fake in (
            ("Event", Event),
            ("_sleep", self.sleep),
            ("synchronize", self.synchronize),
            ("current_device", lambda: 0),
            ("get_device_properties", lambda _: properties),
        ):
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(under_test, "perf_counter_ns", self.read)

    def read(self) -> int:
        return int(self.host)

    def api(self) -> None:
        self.host += API_NS

    def synchronize(self) -> None:
        self.host = max(self.host + self.wait_ns, self.stream, self.side)

    def sleep(self, cycles: int) -> None:
        """Spin at 1 GHz: a slow clock keeps the gate shut for longer."""
        self.spun += cycles
        self.launch(cycles)

    def launch(self, duration: float, cost: float = API_NS) -> None:
        """Let the host take `cost` to launch a kernel that runs for `duration`."""
        self.host += cost
        self.stream = max(self.stream, self.host) + duration

    def launch_aside(self, duration: float) -> None:
        """Launch a kernel on a stream that waits for no other."""
        self.api()
        self.side = max(self.side, self.host) + duration

    def evict(self) -> Any:
        """Give what stands for the buffer that empties L2."""
        return SimpleNamespace(zero_=lambda: self.launch(40_000))
