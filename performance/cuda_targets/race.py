"""Measure the contenders of a row in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter
from typing import Any, Final

import torch

from embconform.backends.catalogue import describe
from embconform.performance.cuda_targets.checks import check, expected_shape
from embconform.performance.cuda_targets.clocks import LAUNCHES, Clock, clock_for
from embconform.performance.cuda_targets.contenders import Call, Offer
from embconform.performance.cuda_targets.graphs import capture, empty_launch
from embconform.performance.cuda_targets.inputs import Inputs
from embconform.performance.passes import Work
from embconform.performance.timers import pinned

SAMPLES: Final = 50
FEWEST_SAMPLES: Final = 10
EMPTY: Final = "empty"
"""The contender that only launches a kernel."""


class Status(StrEnum):
    """What became of a contender in a row."""

    OK = "ok"
    WRONG = "wrong"
    ABSENT = "absent"
    CRASH = "crash"


class DeadDeviceError(Exception):
    """A contender has ended the CUDA context; nothing more can be measured in this process.

    Parameters
    ----------
    family : str
        The contender's.
    detail : str
    """

    def __init__(self, family: str, detail: str) -> None:
        super().__init__(f"{family} ended the CUDA context: {detail}")
        self.family = family


@dataclass
class Runner:
    """A contender in a row.

    Attributes
    ----------
    offer : Offer
    status : Status
    detail : str
        Why it isn't ``ok``; or what should be known of it.
    samples : list of float
        Seconds a call, one a round.
    late : int
        Samples in which the device waited for the host.
    ready_seconds : float
        What loading, compiling and the first call took.
    work : Work or None
        What is timed; None where it can't be.
    last : int or None
        Which of the indices its results belong to; None for those that it is called with.
    """

    offer: Offer
    status: Status = Status.OK
    detail: str = ""
    samples: list[float] = field(default_factory=list)
    late: int = 0
    ready_seconds: float = 0.0
    work: Work | None = None
    last: int | None = None

    @contextmanager
    def reporting(self, status: Status) -> Iterator[None]:
        """Turn an exception into a status, and see whether the device outlived it."""
        try:
            yield
        except Exception as error:
            self.status, self.detail = status, describe(error)
            if torch.cuda.is_available():
                try:
                    torch.cuda.synchronize()
                except Exception:
                    raise DeadDeviceError(self.offer.family, self.detail) from error
                torch.cuda.empty_cache()

    def judge(self, inputs: Inputs, turn: int, output: Any) -> None:
        """Compare a result with what it must be."""
        if self.offer.family == EMPTY:
            return
        checked = check(inputs, turn if self.last is None else self.last, output)
        if checked.wrong or (checked.coarse and self.offer.ours):
            self.status, self.detail = Status.WRONG, checked.wrong or checked.coarse
        elif checked.coarse:
            self.detail = checked.coarse


def race(inputs: Inputs, offers: Sequence[Offer], *, samples: int, seconds: float) -> list[Runner]:
    """Measure contenders in turn, in an order that rotates.

    Parameters
    ----------
    inputs : Inputs
    offers : sequence of Offer
    samples : int
        Of each.
    seconds : float
        For the samples of the row; :data:`FEWEST_SAMPLES` may take longer.

    Returns
    -------
    list of Runner
        In the order of the offers; in rows of graphs an empty kernel comes last.

    Raises
    ------
    DeadDeviceError
        If the device can't be used any more.
    """
    device = inputs.indices[0].device.type
    clock = clock_for(inputs.row, device)
    if inputs.row.clock == "graph":
        offers = [*offers, Offer(EMPTY, EMPTY, lambda: _nothing(device))]
    runners = [Runner(offer) for offer in offers]
    for runner in runners:
        _get_ready(runner, inputs, clock)
    with pinned(1):
        _go_round(runners, inputs, clock, samples, seconds)
    return runners


def _nothing(device: str) -> Call:
    return empty_launch() if device == "cuda" else lambda ids: ids


def _get_ready(runner: Runner, inputs: Inputs, clock: Clock) -> None:
    """Load a contender, hold its first result against the right one, and learn its launching."""
    began, call = perf_counter(), None
    with runner.reporting(Status.ABSENT):
        call = runner.offer.make()
    if call is not None:
        with runner.reporting(Status.CRASH):
            _first_call(runner, call, inputs)
            if runner.status is Status.OK:
                work = _work(runner, call, inputs)
                clock.ready(work, inputs.indices[0])
                runner.work = work
    runner.ready_seconds = perf_counter() - began


def _first_call(runner: Runner, call: Call, inputs: Inputs) -> None:
    inputs.put_back(inputs.indices[0])
    _poison(inputs)
    runner.judge(inputs, 0, call(inputs.indices[0]))


def _work(runner: Runner, call: Call, inputs: Inputs) -> Work:
    """Give what is timed, with what is done before each call off the clock."""
    cuda = inputs.indices[0].is_cuda
    if inputs.row.clock == "graph" and cuda:
        captured = capture(call, inputs.indices, LAUNCHES)
        runner.last = captured.last
        before: Callable[[torch.Tensor], Any] | None = None
        if runner.offer.family != EMPTY:
            before = lambda _: captured.output.fill_(torch.nan)  # noqa: E731
        return Work(captured.replay, before, inputs.weight)
    return Work(call, inputs.put_back if inputs.saved else None, inputs.weight)


def _poison(inputs: Inputs) -> None:
    """Leave NaN in the memory that a result is likely to get next.

    What a contender doesn't write then shows, instead of what the one before it has written.
    """
    dtype, device = getattr(torch, inputs.row.dtype), inputs.indices[0].device
    torch.full(expected_shape(inputs), torch.nan, dtype=dtype, device=device)


def _go_round(
    runners: Sequence[Runner], inputs: Inputs, clock: Clock, samples: int, seconds: float
) -> None:
    began, turns = perf_counter(), len(inputs.indices)
    for k in range(samples):
        over = k + 1 >= FEWEST_SAMPLES and perf_counter() - began > seconds
        last = over or k + 1 == samples
        for j in range(len(runners)):
            runner = runners[(j + k) % len(runners)]
            if runner.work is None or runner.status is not Status.OK:
                continue
            with runner.reporting(Status.CRASH):
                if last:
                    _poison(inputs)
                found = clock.sample(runner.work, inputs.indices[k % turns])
                runner.samples.append(found.seconds)
                runner.late += found.late
                if last:
                    runner.judge(inputs, k % turns, found.output)
                del found
        if last:
            return
