"""Calls from several threads at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import numpy as np
from numpy.typing import NDArray

from embconform.backends.backend import Backend, Described
from embconform.conformance.finding import Finding
from embconform.conformance.judging import Ruling
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy, to_torch
from embconform.conformance.outcome import Raised, raised_from
from embconform.conformance.probes import Probe
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

THREADS, ROUNDS = 4, 150
ROWS, WIDTH = 23, 5


@dataclass(frozen=True, eq=False)
class RoundSeen:
    """One forward and one backward pass of a thread.

    Attributes
    ----------
    rows : ndarray or None
        What was looked up in the shared table.
    gradient : ndarray or None
        Of a table of the thread's own, for an upstream gradient of ones; None where none came.
    raised : Raised or None
        The exception that ended the round.
    """

    rows: Array | None = None
    gradient: Array | None = None
    raised: Raised | None = None


def _table(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((ROWS, WIDTH)).astype(np.float32)


def _ids(seed: int, thread: int) -> Iterator[NDArray[np.int64]]:
    """Draw the indices of a thread, round by round."""
    rng = np.random.default_rng((seed, thread))
    for _ in range(ROUNDS):
        yield rng.integers(0, ROWS, int(rng.integers(1, 40)))


def _observe(
    backend: Backend, profile: Profile, seed: int, device: str
) -> tuple[tuple[RoundSeen, ...], ...]:
    """Let threads look up in one table and train tables of their own, all at once."""
    del profile
    shared = to_torch(_table(seed)).clone().to(device)
    start = Barrier(THREADS)

    def work(thread: int) -> tuple[RoundSeen, ...]:
        start.wait()
        return tuple(_round(backend, ids, shared) for ids in _ids(seed, thread))

    with ThreadPoolExecutor(THREADS) as pool:
        return tuple(pool.map(work, range(THREADS)))


def _round(backend: Backend, ids: NDArray[np.int64], shared: torch.Tensor) -> RoundSeen:
    """Make one forward and one backward pass."""
    assert backend.functional is not None
    indices = to_torch(ids).to(shared.device)
    own = shared.detach().clone().requires_grad_("gradient" in backend.able)
    try:
        rows = to_numpy(backend.functional(indices, shared))
        out = backend.functional(indices, own)
        if own.requires_grad:
            out.sum().backward()
        return RoundSeen(rows, None if own.grad is None else to_numpy(own.grad))
    except (Exception, SystemExit) as error:
        return RoundSeen(raised=raised_from(error))


def _judge(
    threads: tuple[tuple[RoundSeen, ...], ...], described: Described, profile: Profile, seed: int
) -> list[Ruling]:
    """Compare every round with what one thread alone gets."""
    del profile
    table, trained = _table(seed), "gradient" in described.able
    wrong = []
    for thread, rounds in enumerate(threads):
        for turn, (ids, seen) in enumerate(zip(_ids(seed, thread), rounds, strict=True)):
            text = _wrong(table, ids, seen, trained=trained)
            if text:
                wrong.append(f"in round {turn} of thread {thread}: {text}")
                break
    if not wrong:
        return [Ruling("state.threads", None)]
    message = f"{len(wrong)} of {THREADS} threads got something wrong, {wrong[0]}"
    return [Ruling("state.threads", Finding(message, wrong[0], "what one thread alone gets"))]


def _wrong(
    table: NDArray[np.float32], ids: NDArray[np.int64], seen: RoundSeen, *, trained: bool
) -> str:
    """Say what is wrong with a round; nothing where it is right."""
    if seen.raised is not None:
        return str(seen.raised)
    if seen.rows is None or not np.array_equal(seen.rows, table[ids]):
        return f"the rows of {len(ids)} indices are not theirs"
    if not trained:
        return ""
    counts = np.bincount(ids, minlength=ROWS)[:, None] * np.ones((1, WIDTH))
    if seen.gradient is None or not np.array_equal(seen.gradient, counts):
        return f"the gradient of {len(ids)} ones does not count them"
    return ""


THREAD_PROBE = Probe(
    "threads", frozenset({"state.threads"}), frozenset({"functional"}), _observe, _judge
)
