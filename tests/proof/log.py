"""Results as lines of JSON in a file that a run can be stopped at, and go on with, at any time."""

from __future__ import annotations

import json
import lzma
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from embconform.conformance.environment import environment
from embconform.proof.hunt import Hunt
from embconform.proof.pool import Died, each
from embconform.proof.right import Acceptance
from embconform.proof.tasks import HuntTask, Task, do

XZ: Final = ".xz"


@dataclass
class Log:
    """What was found so far.

    Attributes
    ----------
    hunts : dict of tuple to Hunt
        By name, profile and seed.
    acceptances : dict of tuple to Acceptance
        By name, budget and seed.
    runs : list of dict
        The command, commit and versions of each call.
    """

    hunts: dict[tuple[str, str, int], Hunt] = field(default_factory=dict)
    acceptances: dict[tuple[str, str, int], Acceptance] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Log:
        """Read a file, which xz may have compressed, or nothing where there is none.

        Raises
        ------
        click.ClickException
            If a line is no JSON; where a run was killed, the last line may be half a one.
        """
        log = cls()
        lines = _lines(path) if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                log.add(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise click.ClickException(
                    f"{path}, line {number} is not a result ({error}); delete it"
                ) from error
        return log

    def add(self, data: dict[str, Any]) -> None:
        """Count a line."""
        kind = data.pop("kind")
        if kind == "run":
            self.runs.append(data)
        elif kind == "bug":
            hunt = Hunt.from_dict(data)
            self.hunts[hunt.name, hunt.profile, hunt.seed] = hunt
        elif kind == "right":
            done = Acceptance.from_dict(data)
            self.acceptances[done.name, done.budget, done.seed] = done
        else:
            raise ValueError(f"unknown kind {kind!r}")

    def has(self, task: Task) -> bool:
        """Tell whether a task is done."""
        if isinstance(task, HuntTask):
            return (task.name, task.profile, task.seed) in self.hunts
        return (task.name, task.budget, task.seed) in self.acceptances

    def provenance(self) -> list[str]:
        """Write the commits and versions of all calls as a Markdown list."""
        names = ("commit", "torch", "numpy", "hypothesis", "python", "system")
        return [
            f"- {name}: {', '.join(dict.fromkeys(str(run[name]) for run in self.runs))}"
            for name in names
        ]

    def commands(self) -> list[str]:
        """List the command lines of all calls, each once."""
        return list(dict.fromkeys(run["command"] for run in self.runs))


def _lines(path: Path) -> list[str]:
    data = path.read_bytes()
    return (lzma.decompress(data) if path.suffix == XZ else data).decode().splitlines()


def go_on(module: str, wished: Sequence[Task], out: Path, workers: int) -> int:
    """Do what the file doesn't hold yet, and append every result as it comes.

    Parameters
    ----------
    module : str
        The module that was called, for the command line in the file.
    wished : sequence of Task
    out : Path
    workers : int

    Returns
    -------
    int
        The exit code: 0, or 1 if a task's process died or raised, or 130 if interrupted.
    """
    if out.suffix == XZ:
        raise click.UsageError(f"{out} is compressed; unpack it with xz -dk to go on with it")
    log = Log.read(out)
    todo = [task for task in wished if not log.has(task)]
    _say(f"{len(wished) - len(todo)} of {len(wished)} runs are done")
    if not todo:
        return 0
    code = 0
    with out.open("a", encoding="utf-8") as stream:
        command = shlex.join(["python", "-m", module, *_without_out(sys.argv[1:])])
        told = {"kind": "run", "commit": commit(), "command": command} | environment("cpu")
        stream.write(json.dumps(told) + "\n")
        try:
            for number, (task, result) in enumerate(each(do, todo, workers), 1):
                if isinstance(result, Died):
                    _say(f"{task.name}, seed {task.seed}: {result.why}")
                    code = 1
                    continue
                stream.write(line_of(result))
                stream.flush()
                if number % 100 == 0:
                    _say(f"{number} of {len(todo)}")
        except KeyboardInterrupt:
            _say(f"interrupted; {out} keeps what was done")
            return 130
    return code


def _without_out(arguments: Sequence[str]) -> list[str]:
    """Leave out where the file lies: that is nobody else's concern."""
    at = arguments.index("--out") if "--out" in arguments else len(arguments)
    return [*arguments[:at], *arguments[at + 2 :]]


def line_of(result: Hunt | Acceptance) -> str:
    """Write a result as a line of JSON."""
    kind = "bug" if isinstance(result, Hunt) else "right"
    return json.dumps({"kind": kind} | result.as_dict()) + "\n"


def commit() -> str:
    """Name the commit of the checkout that this file lies in, or ``unknown``."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _say(message: str) -> None:
    click.echo(message, err=True)
