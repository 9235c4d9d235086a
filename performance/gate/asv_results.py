"""asv's results, read and written through asv's own modules."""

from __future__ import annotations

import json
import math
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Final

from embconform.performance.gate.history import Series

_FEWER_IS_WORSE: Final = ("share", "/s")
"""Ends of units of which less is worse; of all else, more is, as asv has it."""
_SHORT: Final = 9


class AsvError(Exception):
    """asv's configuration or results can't be used; one line."""


def read(config: Path) -> list[Series]:
    """Read everything that asv knows.

    Parameters
    ----------
    config : Path
        asv.conf.json.

    Returns
    -------
    list of Series
        One a machine, environment, benchmark and parameters; commits as the repository has them,
        or by their dates where it isn't here.

    Raises
    ------
    AsvError
    """
    from asv.results import iter_results

    folder = _results_folder(config)
    units = _units(folder)
    points: dict[tuple[str, ...], dict[str, tuple[int, float]]] = defaultdict(dict)
    for results in iter_results(str(folder)):
        for name in results.get_all_result_keys():
            for params, value in _values(results, name):
                key = (name, results.benchmark_version.get(name) or "", params)
                where = (results.params.get("machine", ""), results.env_name)
                points[*key, *where][results.commit_hash] = (results.date, value)
    if not points:
        raise AsvError(f"no results of asv stand under {folder}")
    places = _places(config, {commit for of in points.values() for commit in of})
    return [_series(key, of, units, places) for key, of in sorted(points.items())]


def write(config: Path, commit: str, seconds: Mapping[str, float], where: Mapping[str, str]) -> str:
    """Write times of a commit beside asv's own results.

    Parameters
    ----------
    config : Path
        asv.conf.json.
    commit : str
        40 hexadecimal digits.
    seconds : mapping of str to float
        Under the names of benchmarks.
    where : mapping of str to str
        The environment, as :func:`embconform.performance.machine.machine` gives it.

    Returns
    -------
    str
        The folder that was written to.

    Raises
    ------
    AsvError
    """
    from asv.machine import Machine
    from asv.repo import get_repo
    from asv.results import Results
    from asv.runner import BenchmarkResult
    from asv.util import UserError

    folder = _results_folder(config)
    try:
        repo = get_repo(_load(config))
        date = repo.get_date(commit)
    except UserError as error:
        raise AsvError(" ".join(str(error).split())) from error
    described = Machine()
    described.__dict__.update(_machine(where))
    python = ".".join(platform.python_version_tuple()[:2])
    torch = where["torch"]
    given = {**described.__dict__, "python": python, "torch": torch}
    name = f"embconform-gate-py{python}-torch{torch}"
    results = Results(given, {"torch": torch}, commit, date, python, name, {})
    results.load_data(str(folder))
    for benchmark, value in seconds.items():
        results.add_result(
            {"name": f"gate.{benchmark.replace(' ', '.')}", "version": "1", "params": []},
            BenchmarkResult(
                result=[value], samples=[None], number=[None], errcode=0, stderr="", profile=None
            ),
            started_at=datetime.now(UTC),
        )
    described.save(str(folder))
    results.save(str(folder))
    return str(folder / described.machine)


def _load(config: Path) -> Any:
    from asv.config import Config
    from asv.util import UserError

    try:
        found = Config.load(str(config))
    except UserError as error:
        raise AsvError(" ".join(str(error).split())) from error
    if not (Path(found.repo).is_absolute() or "://" in found.repo):
        found.repo = str((config.parent / found.repo).resolve())
    return found


def _results_folder(config: Path) -> Path:
    return Path(config.parent, _load(config).results_dir).resolve()


def _units(folder: Path) -> dict[str, str]:
    """Read the units of benchmarks, where asv has listed them."""
    try:
        listed = json.loads((folder / "benchmarks.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: str(b.get("unit", "")) for name, b in listed.items() if isinstance(b, dict)}


def _values(results: Any, name: str) -> Iterator[tuple[str, float]]:
    """Give the numbers of a benchmark, under its parameters in words."""
    axes = results.get_result_params(name)
    for params, value in zip(product(*axes), results.get_result_value(name, axes), strict=True):
        if isinstance(value, int | float) and math.isfinite(value):
            yield ", ".join(word.strip("'") for word in params), float(value)


def _places(config: Path, commits: set[str]) -> dict[str, int]:
    """Give the commits' places in the repository, where it lies here and knows them."""
    from asv.repo import get_repo
    from asv.util import ProcessError, UserError

    known = _load(config)
    if not Path(known.repo).exists():
        return {}  # asv would clone it
    try:
        found: dict[str, int] = get_repo(known).get_revisions(commits)
    except (UserError, ProcessError):
        return {}
    return found


def _series(
    key: tuple[str, ...],
    of: dict[str, tuple[int, float]],
    units: dict[str, str],
    places: dict[str, int],
) -> Series:
    name, _, params, machine, environment = key
    known = all(commit in places for commit in of)  # asv's dates are when commits were written
    ordered = sorted(of.items(), key=lambda item: places[item[0]] if known else item[1][0])
    said = f"{name}({params})" if params else name
    return Series(
        f"{said} on {machine}, {environment}",
        tuple(commit[:_SHORT] for commit, _ in ordered),
        tuple(value for _, (_, value) in ordered),
        not units.get(name, "").endswith(_FEWER_IS_WORSE),
    )


def _machine(where: Mapping[str, str]) -> dict[str, str]:
    """Describe this machine in asv's terms."""
    system = where["system"].split()
    return {
        "machine": platform.node(),
        "os": " ".join(system[:2]),
        "arch": system[-1],
        "cpu": where["cpu"],
        "num_cpu": where["cores"],
        "ram": where["memory"].split(",")[0],
    }
