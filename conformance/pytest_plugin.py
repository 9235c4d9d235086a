"""``pytest --pyargs embconform.conformance --embedding-backend TARGET``: one item a clause.

pytest imports this file wherever embconform is installed, so it imports the rest of the suite, and
torch, only for a run that judges something.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from embconform.conformance.api import Plan

_HERE: Final = Path(__file__).resolve().parent
_NAME: Final = "embconform.conformance"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the conformance items."""
    group = parser.getgroup("embconform", "conformance of an embedding")
    group.addoption(
        "--embedding-backend",
        metavar="TARGET",
        help=f"What to judge under --pyargs {_NAME}: a name, package.module:attr or file.py:attr",
    )
    group.addoption(
        "--embedding-profile",
        choices=("torch", "textbook"),
        help="Which embedding is meant (default: the backend's own)",
    )
    group.addoption(
        "--embedding-budget",
        choices=("quick", "default", "thorough"),
        default="quick",
        help="How many cases to run (default: quick)",
    )
    group.addoption("--embedding-seed", type=int, default=0, help="Draws cases (default: 0)")
    group.addoption(
        "--embedding-device",
        choices=("cpu", "cuda"),
        help="Where (default: cpu, or what the target is for)",
    )
    group.addoption(
        "--embedding-select",
        metavar="GLOB",
        default="*",
        help="Only clauses whose id matches; several patterns joined by commas",
    )
    group.addoption("--embedding-deviations", metavar="FILE", help="TOML of known deviations")
    group.addoption(
        "--embedding-isolation",
        choices=("process", "none"),
        default="process",
        help="Run the target in a process of its own, or in this one (default: process)",
    )
    group.addoption("--embedding-strict", action="store_true", help="Let SHOULD clauses count")


def pytest_sessionstart(session: pytest.Session) -> None:
    """End the session with one line where what it is to judge can't be judged."""
    config = session.config
    if hasattr(config, "workerinput") or not any(_is_ours(config, arg) for arg in config.args):
        return
    if not config.option.embedding_backend:
        raise pytest.UsageError(f"{_NAME} needs --embedding-backend TARGET, as in: eager")
    from embconform.backends.backend import TargetError

    try:
        _plan(config)
    except TargetError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what is judged."""
    option = config.option
    if not option.embedding_backend:
        return None
    plan = config.stash.get(_PLAN, None)
    device = plan.options.device if plan else option.embedding_device or "its own device"
    return (
        f"embedding backend: {option.embedding_backend}, {option.embedding_budget} budget, "
        f"seed {option.embedding_seed}, {device}"
    )


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect clauses, not files, in the folder of this package."""
    if path.name != _HERE.name or path.resolve() != _HERE:
        return None
    # the name, not where the package lies: the same ids from every folder
    made: ClauseDirectory = ClauseDirectory.from_parent(parent, path=path, nodeid=_NAME)
    return made


class ClauseDirectory(pytest.Directory):
    """The clauses of the backend's profile."""

    def collect(self) -> Iterator[pytest.Item]:
        """Make one item a clause; none where a run of a whole folder names no backend."""
        from embconform.backends.backend import TargetError

        if not self.config.option.embedding_backend:
            return
        try:
            plan = _plan(self.config)
        except TargetError as error:
            raise self.CollectError(str(error)) from error
        for clause in plan.clauses:
            yield ClauseItem.from_parent(self, name=clause.id, plan=plan)


class ClauseItem(pytest.Item):
    """One clause."""

    def __init__(self, *, plan: Plan, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        for mark in plan.marks(self.name):
            self.add_marker(mark)

    def runtest(self) -> None:
        """End as the clause's result says."""
        self.plan.end_test(self.name)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Head a failure with the clause and the target."""
        return self.path, None, f"{self.name} of {self.plan.name}"


_PLAN: Final = pytest.StashKey["Plan"]()


def _plan(config: pytest.Config) -> Plan:
    """Find the backend once a session; all items read its one report."""
    from embconform.conformance.api import plan

    option = config.option
    if _PLAN not in config.stash:
        config.stash[_PLAN] = plan(
            option.embedding_backend,
            profile=option.embedding_profile,
            budget=option.embedding_budget,
            seed=option.embedding_seed,
            device=option.embedding_device,
            select=option.embedding_select,
            deviations=option.embedding_deviations,
            strict=option.embedding_strict,
            isolation=option.embedding_isolation,
        )
    return config.stash[_PLAN]


def _is_ours(config: pytest.Config, argument: str) -> bool:
    """Tell whether an argument of pytest names this package, by its name or its folder."""
    if config.option.pyargs and argument == _NAME:
        return True
    path = config.invocation_params.dir / argument
    return path.name == _HERE.name and path.resolve() == _HERE
