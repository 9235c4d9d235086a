"""Calls from several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import torch

from embconform.backends.backend import Backend
from embconform.conformance.finding import Finding
from embconform.conformance.judging import Ruling
from embconform.conformance.observe import to_numpy, to_torch
from embconform.conformance.outcome import raised_from
from embconform.conformance.probes import Probe
from embconform.reference.clause import Profile

THREADS, ROUNDS = 4, 60
ROWS, WIDTH = 23, 5


def _many_threads(backend: Backend, profile: Profile, seed: int, device: str) -> list[Ruling]:
    """Let threads look up in one table and train tables of their own, all at once."""
    del profile
    table = np.random.default_rng(seed).standard_normal((ROWS, WIDTH)).astype(np.float32)
    shared = to_torch(table.copy()).to(device)
    start = Barrier(THREADS)

    def work(number: int) -> str:
        start.wait()
        rng = np.random.default_rng((seed, number))
        for turn in range(ROUNDS):
            wrong = _round(backend, table, shared, rng)
            if wrong:
                return f"in round {turn} of thread {number}: {wrong}"
        return ""

    with ThreadPoolExecutor(THREADS) as pool:
        wrong = [text for text in pool.map(work, range(THREADS)) if text]
    if not wrong:
        return [Ruling("state.threads", None)]
    message = f"{len(wrong)} of {THREADS} threads got something wrong, {wrong[0]}"
    return [Ruling("state.threads", Finding(message, wrong[0], "what one thread alone gets"))]


def _round(
    backend: Backend, table: np.ndarray, shared: torch.Tensor, rng: np.random.Generator
) -> str:
    """Make one forward and one backward pass, and say what is wrong with them."""
    assert backend.functional is not None
    ids = rng.integers(0, ROWS, int(rng.integers(1, 40)))
    indices = to_torch(ids).to(shared.device)
    own = shared.detach().clone().requires_grad_("gradient" in backend.able)
    try:
        seen = to_numpy(backend.functional(indices, shared))
        out = backend.functional(indices, own)
        if own.requires_grad:
            out.sum().backward()
    except Exception as error:
        return str(raised_from(error))
    if seen.shape != (len(ids), WIDTH) or not np.array_equal(seen, table[ids]):
        return f"the rows of {len(ids)} indices are not theirs"
    if not own.requires_grad:
        return ""
    counts = np.bincount(ids, minlength=ROWS)[:, None]
    if own.grad is None or not np.array_equal(to_numpy(own.grad), counts * np.ones((1, WIDTH))):
        return f"the gradient of {len(ids)} ones does not count them"
    return ""


THREAD_PROBE = Probe(
    "threads", frozenset({"state.threads"}), frozenset({"functional"}), _many_threads
)
