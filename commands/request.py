"""What the user asked of a validation, besides targets and files."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import click
import psutil

from embconform.backends.torchrun import under_torchrun
from embconform.reference.clause import Profile

MOST_WORKERS: Final = 4
"""More take longer to start than they save in a run of half a minute."""
ROOM: Final = 10 * 2**30
"""Bytes that a process wants free: a table of 2**31 elements of 16 bits, and its copy."""


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes are the options of ``embconform validate``; times in seconds, memory in GiB, a shard
    as its number and how many there are. The device is None where each target runs on its own.
    """

    profile: Profile | None
    budget: str
    max_examples: int | None
    seed: int
    device: str | None
    select: str
    deviations: Path | None
    strict: bool
    fail_fast: bool
    isolation: str
    case_timeout: float | None
    timeout: float | None
    memory: float | None
    workers: int | None = None
    shard: tuple[int, int] = (1, 1)
    resume: Path | None = None
    database: str | None = None
    lasting: float | None = None
    scheduler: str | None = None

    @cached_property
    def helpers(self) -> int:
        """Processes that judge besides this one; none where the first failure ends the run."""
        return 0 if self.fail_fast else (self.workers or self._workers_that_fit) - 1

    @property
    def _workers_that_fit(self) -> int:
        """Processes that each have a core and, on the CPU, the memory that a huge table takes."""
        alone = self.isolation == "none" or self.device not in ("cpu", None)
        if alone or under_torchrun():  # whose ranks are there once
            return 1
        roomy: int = psutil.virtual_memory().available // ROOM
        return max(1, min(len(os.sched_getaffinity(0)), roomy, MOST_WORKERS))

    def check(self, targets: int) -> None:
        """Refuse options that do not go together.

        Parameters
        ----------
        targets : int
            How many targets there are.

        Raises
        ------
        click.UsageError
        """
        several = self.workers is not None and self.workers > 1
        if several and self.isolation == "none":
            raise click.UsageError("--workers needs --isolation process: one process a target")
        if several and under_torchrun():
            raise click.UsageError(
                "torchrun's ranks serve one process; leave --workers and EMBCONFORM_WORKERS out"
            )
        if self.shard[1] > 1 and self.fail_fast:
            raise click.UsageError(
                "--fail-fast ends a run at its first failure, which no --shard knows; leave one out"
            )
        if self.lasting and (self.shard[1] > 1 or self.resume or self.timeout):
            raise click.UsageError(
                "--for goes on with new seeds until its time is over; leave "
                "--shard, --resume and --timeout out"
            )
        if self.scheduler is not None and (
            self.shard[1] > 1 or self.resume or self.lasting or self.fail_fast or several
        ):
            raise click.UsageError(
                "--scheduler makes the shards itself; leave --shard, --workers, --resume, --for "
                "and --fail-fast out"
            )
        if self.resume and self.fail_fast:
            raise click.UsageError("--resume goes on to the end; leave --fail-fast out")
        if self.resume and targets > 1:
            raise click.UsageError("--resume goes on with one target; name only that one")

    def replay(self, target: str, profile: Profile, *, whole: bool = False) -> str:
        """Write the command line that repeats the run of one target; `whole` leaves shards out."""
        request = replace(self, shard=(1, 1)) if whole else self
        return shlex.join(request.words(target, profile))

    def words(self, target: str, profile: Profile | None) -> list[str]:
        """Write the command line that asks for the same of one target, word by word."""
        words = ["embconform", "validate", target]
        words += ["--profile", profile.value] if profile else []
        words += ["--seed", str(self.seed)]
        for option, value, plain in (
            ("--budget", self.budget, "default"),
            ("--max-examples", self.max_examples, None),
            ("--device", self.device, None),
            ("--select", self.select, "*"),
            ("--deviations", self.deviations, None),
            ("--isolation", self.isolation, "process"),
            ("--case-timeout", self.case_timeout, None),
            ("--timeout", self.timeout, None),
            ("--memory", self.memory, None),
            ("--for", self.lasting and f"{self.lasting:.0f}s", None),
        ):
            if value != plain:
                words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
        if self.shard[1] > 1:
            words += ["--shard", f"{self.shard[0]}/{self.shard[1]}"]
        words += ["--strict"] * self.strict + ["--fail-fast"] * self.fail_fast
        return words
