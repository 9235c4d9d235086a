"""Run the shards of a validation on a dask.distributed cluster, and merge what comes back."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from embconform.commands.parts import read_pieces
from embconform.commands.request import Request

if TYPE_CHECKING:
    from embconform.conformance.report import Report

SHARDS_A_THREAD: Final = 2
MOST_SHARDS: Final = 128
_PATIENCE: Final = 20.0
_RETRIES: Final = 2
_SLICE: Final = 0.2
_COMMAND: Final = (
    "from embconform.backends.parent import end_with_parent; end_with_parent();"
    "from embconform.commands.main import entry_point; entry_point()"
)


def run_shard(arguments: Sequence[str]) -> tuple[int, str]:
    """Run a shard in a process of its own; called on a worker of the cluster.

    Parameters
    ----------
    arguments : sequence of str
        What stands after ``embconform``, without --json.

    Returns
    -------
    tuple of int and str
        The exit code; the JSON report, or what was said where there is none.
    """
    with tempfile.TemporaryDirectory(prefix="embconform-") as folder:
        file = Path(folder) / "shard.json"
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, *arguments, "--json", str(file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode in (0, 1):
            return done.returncode, file.read_text(encoding="utf-8")
        return done.returncode, done.stderr


def run_on_cluster(
    address: str, targets: Sequence[str], request: Request, stop: Callable[[], bool]
) -> list[Report]:
    """Run every target's shards on a cluster.

    Parameters
    ----------
    address : str
        Of the scheduler.
    targets : sequence of str
    request : Request
    stop : callable
        Whether somebody wants to stop.

    Returns
    -------
    list of Report
        The same as without a cluster, but for times.

    Raises
    ------
    click.UsageError
        If the cluster, or a target on it, can't be used.
    """
    from embconform.conformance.running.merging import MergeError, merged

    client = _connect(address)
    try:
        threads = sum(client.nthreads().values())
        if not threads:
            raise click.UsageError(f"the scheduler at {address} has no worker")
        of = min(SHARDS_A_THREAD * threads, MOST_SHARDS)
        calls = [_call(target, request, k, of) for target in targets for k in range(1, of + 1)]
        futures = client.map(run_shard, calls, pure=False, retries=_RETRIES)
        texts = _gathered(client, futures, stop)
    finally:
        client.close()
    reports = []
    with tempfile.TemporaryDirectory(prefix="embconform-") as folder:
        for number in range(len(targets)):
            pieces = []
            for shard, text in enumerate(texts[number * of : (number + 1) * of], 1):
                file = Path(folder) / f"shard {shard} of {of}"
                file.write_text(text, encoding="utf-8")
                pieces += read_pieces(file)
            try:
                reports.append(merged(pieces))
            except MergeError as error:
                raise click.UsageError(f"the workers are not alike: {error}") from error
    return reports


def _call(target: str, request: Request, shard: int, of: int) -> list[str]:
    words = replace(request, shard=(shard, of)).words(target, request.profile)
    return [*words[1:], "--database", request.database or "none"]


def _connect(address: str) -> Any:
    match = re.fullmatch(r"(?:tcp|tls)://(\[[0-9a-fA-F:]+\]|[\w.-]+):([0-9]{1,5})", address)
    if not match or not 0 < int(match[2]) < 2**16:
        raise click.UsageError(f"--scheduler {address!r} is not tcp://HOST:PORT")
    try:
        import distributed
    except ImportError as error:
        raise click.UsageError(
            "--scheduler needs a package: pip install 'embconform[dask]'"
        ) from error
    make: Any = distributed.Client  # untyped
    try:
        with socket.create_connection((match[1].strip("[]"), int(match[2])), _PATIENCE):
            pass  # Dask tries again and again where nobody listens
        return make(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        told = " ".join(str(error).split())
        raise click.UsageError(f"can't use --scheduler {address}: {told}") from error


def _gathered(client: Any, futures: list[Any], stop: Callable[[], bool]) -> list[str]:
    """Wait for all shards, or for the first that can't be run."""
    waiting = list(futures)
    while waiting:
        if stop():
            client.cancel(futures)
            raise KeyboardInterrupt
        ended = [future for future in waiting if future.done()]
        waiting = [future for future in waiting if future not in ended]
        for future in ended:
            _check(client, futures, future)
        if not ended:
            _pause()
    return [future.result()[1] for future in futures]


def _check(client: Any, futures: list[Any], future: Any) -> None:
    if future.status == "error":
        client.cancel(futures)
        raise click.UsageError(f"a shard could not be run on the cluster: {future.exception()}")
    code, text = future.result()
    if code not in (0, 1):
        client.cancel(futures)
        lines = text.strip().splitlines() or [f"exit code {code}"]
        raise click.UsageError(f"on the cluster: {lines[-1].removeprefix('embconform: ')}")


def _pause() -> None:
    import time

    time.sleep(_SLICE)
