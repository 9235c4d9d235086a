"""What the user asked of a validation, besides targets and files."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from embconform.reference.clause import Profile


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes are the options of ``embconform validate``; times in seconds, memory in GiB.
    """

    profile: Profile | None
    budget: str
    max_examples: int | None
    seed: int
    device: str
    select: str
    deviations: Path | None
    strict: bool
    fail_fast: bool
    isolation: str
    case_timeout: float | None
    timeout: float | None
    memory: float | None

    def replay(self, target: str, profile: Profile) -> str:
        """Write the command line that repeats the run of one target."""
        words = ["embconform", "validate", target, "--profile", profile.value]
        words += ["--seed", str(self.seed)]
        for option, value, plain in (
            ("--budget", self.budget, "default"),
            ("--max-examples", self.max_examples, None),
            ("--device", self.device, "cpu"),
            ("--select", self.select, "*"),
            ("--deviations", self.deviations, None),
            ("--isolation", self.isolation, "process"),
            ("--case-timeout", self.case_timeout, None),
            ("--timeout", self.timeout, None),
            ("--memory", self.memory, None),
        ):
            if value != plain:
                words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
        words += ["--strict"] * self.strict + ["--fail-fast"] * self.fail_fast
        return shlex.join(words)
