"""``pytest --pyargs embconform.conformance --embedding-backend TARGET``: one item a clause."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from embconform.conformance.report import Report

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the conformance items."""
    group = parser.getgroup("embconform", "conformance of an embedding")
    group.addoption(
        "--embedding-backend",
        metavar="TARGET",
        help="What to judge under embconform.conformance: a name, package.module:attr or file:attr",
    )
    group.addoption("--embedding-profile", choices=("torch", "textbook"), help="Which embedding")
    group.addoption(
        "--embedding-budget",
        choices=("quick", "default", "thorough"),
        default="quick",
        help="How many cases to run (default: quick)",
    )
    group.addoption("--embedding-seed", type=int, default=0, help="Draws cases (default: 0)")
    group.addoption("--embedding-device", choices=("cpu", "cuda"), default="cpu")
    group.addoption("--embedding-select", metavar="GLOB", default="*", help="Only these clauses")
    group.addoption("--embedding-deviations", metavar="FILE", help="TOML of known deviations")
    group.addoption("--embedding-strict", action="store_true", help="Let SHOULD clauses count")


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect clauses, not files, in the folder of this package."""
    if path.resolve() == HERE.resolve():
        clauses: ClauseDirectory = ClauseDirectory.from_parent(parent, path=path)
        return clauses
    return None


class ClauseDirectory(pytest.Directory):
    """The clauses of the backend's profile."""

    def collect(self) -> Iterator[pytest.Item]:
        """Make one item a clause."""
        from embconform.backends.backend import TargetError
        from embconform.conformance.api import found, profile_of
        from embconform.reference.clause import select

        option = self.config.option
        if not option.embedding_backend:
            raise pytest.UsageError("embconform.conformance needs --embedding-backend TARGET")
        try:
            name, backend = found(option.embedding_backend)
            profile = profile_of(name, backend, option.embedding_profile)
        except TargetError as error:
            raise pytest.UsageError(str(error)) from error
        shared = SharedReport(option)
        for clause in select(profile, option.embedding_select):
            yield ClauseItem.from_parent(self, name=clause.id, shared=shared)


class SharedReport:
    """The one run that all items read."""

    def __init__(self, option: Any) -> None:
        self.option = option
        self.made: Report | None = None

    def report(self) -> Report:
        """Run the backend at the first call."""
        from embconform.conformance.api import validated

        if self.made is None:
            option = self.option
            self.made = validated(
                option.embedding_backend,
                profile=option.embedding_profile,
                budget=option.embedding_budget,
                seed=option.embedding_seed,
                device=option.embedding_device,
                pattern=option.embedding_select,
                deviations=option.embedding_deviations,
                strict=option.embedding_strict,
            )
        return self.made


class ClauseItem(pytest.Item):
    """One clause."""

    def __init__(self, *, shared: SharedReport, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shared = shared

    def runtest(self) -> None:
        """End as the clause's result says."""
        from embconform.conformance.api import outcome

        report = self.shared.report()
        (result,) = (r for r in report.clauses if r.clause.id == self.name)
        outcome(result, report)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Name the clause in pytest's output."""
        return self.path, None, self.name
