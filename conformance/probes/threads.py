"""Calls from several threads at once, and passes of one call in different threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import Barrier
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embconform.backends.backend import Backend, Described
from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.finding import Finding
from embconform.conformance.judging import Ruling
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context, to_numpy, to_torch
from embconform.conformance.outcome import Raised, raised_from
from embconform.conformance.probes.claims import Claim
from embconform.conformance.probes.registry import Probe
from embconform.conformance.probes.thrift import LAST, fewest
from embconform.conformance.probes.transforms.claims import Bounded, GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import (
    MANY,
    Claims,
    Function,
    Lab,
    Trial,
    probe_of,
)
from embconform.conformance.recording import read, read_dense
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

_CLAUSE: Final = "state.threads"
THREADS, ROUNDS = 4, 150
FEW: Final = 7
ENDED: Final = 3
"""Threads that look up few indices, and as many that look up many, one after the other."""
ROWS, WIDTH = 23, 5
Run = Callable[[Callable[[], Any]], Any]
"""Does some work in one thread or another, and gives its result."""
_IN_TURN: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"padding_idx": 3},
    {"scale_grad_by_freq": True},
    {"padding_idx": 7, "scale_grad_by_freq": True},
)


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


def _ids(described: Described, seed: int, thread: int) -> Iterator[NDArray[np.int64]]:
    """Draw the indices of a thread, round by round."""
    rng = np.random.default_rng((seed, thread))
    sizes = fewest(described, range(1, 40), slice(4, None, 32))
    for _ in range(ROUNDS):
        yield rng.integers(0, ROWS, sizes[int(rng.integers(len(sizes)))])


def _options(described: Described, profile: Profile, turn: int) -> dict[str, Any]:
    """Choose the options of a round: none where each is compiled, or only a gradient shows them."""
    if described.compiled or "gradient" not in described.able:
        return {}
    beyond = {"scale_grad_by_freq"} if profile is Profile.TEXTBOOK else set()
    wanted = _IN_TURN[turn % len(_IN_TURN)]
    return {name: wanted[name] for name in wanted if name in described.able - beyond}


def _observe(
    backend: Backend, profile: Profile, seed: int, device: str
) -> tuple[tuple[RoundSeen, ...], ...]:
    """Let threads look up in one table and train tables of their own, all at once."""
    shared = to_torch(_table(seed)).clone().to(device)
    start = Barrier(THREADS)

    def work(thread: int) -> tuple[RoundSeen, ...]:
        start.wait()
        seen = [  # no tuple, which a target that lists gc's objects meanwhile would break half made
            _round(backend, ids, shared, _options(backend, profile, turn))
            for turn, ids in enumerate(_ids(backend, seed, thread))
        ]
        return tuple(seen)

    with ThreadPoolExecutor(THREADS) as pool:
        return tuple(pool.map(work, range(THREADS)))


def _round(
    backend: Backend, ids: NDArray[np.int64], shared: torch.Tensor, options: dict[str, Any]
) -> RoundSeen:
    """Make one forward and one backward pass."""
    assert backend.functional is not None
    indices = to_torch(ids).to(shared.device)
    own = shared.detach().clone().requires_grad_("gradient" in backend.able)
    try:
        rows = to_numpy(backend.functional(indices, shared))
        out = backend.functional(indices, own, **options)
        if own.requires_grad:
            out.sum().backward()
        return RoundSeen(rows, None if own.grad is None else to_numpy(own.grad))
    except (Exception, SystemExit) as error:
        return RoundSeen(raised=raised_from(error))


def _judge(
    threads: tuple[tuple[RoundSeen, ...], ...], described: Described, profile: Profile, seed: int
) -> list[Ruling]:
    """Compare every round with what one thread alone gets."""
    table, trained = _table(seed), "gradient" in described.able
    wrong = []
    for thread, rounds in enumerate(threads):
        for turn, (ids, seen) in enumerate(zip(_ids(described, seed, thread), rounds, strict=True)):
            lookup = Lookup(ids, table, _options(described, profile, turn), profile)
            text = _wrong(lookup, seen, trained=trained)
            if text:
                wrong.append(f"in round {turn} of thread {thread}: {text}")
                break
    if not wrong:
        return [Ruling(_CLAUSE, None)]
    message = f"{len(wrong)} of {THREADS} threads got something wrong, {wrong[0]}"
    return [Ruling(_CLAUSE, Finding(message, wrong[0], "what one thread alone gets"))]


def _wrong(lookup: Lookup, seen: RoundSeen, *, trained: bool) -> str:
    """Say what is wrong with a round; nothing where it is right."""
    ids, options = lookup.ids, lookup.options
    if seen.raised is not None:
        return str(seen.raised)
    if seen.rows is None or not np.array_equal(seen.rows, lookup.table[ids]):
        return f"the rows of {len(ids)} indices are not theirs"
    if not trained:
        return ""
    exact, bound = lookup.gradient(np.ones(lookup.shape, np.float32))
    if seen.gradient is None or seen.gradient.shape != exact.shape:
        return f"the gradient of {len(ids)} ones is none of the table's"
    if not (np.abs(seen.gradient - exact) <= bound).all():
        told = f" with {options}" if options else ""
        return f"the gradient of {len(ids)} ones{told} does not count them"
    return ""


THREAD_PROBE = Probe("threads", frozenset({_CLAUSE}), frozenset({"functional"}), _observe, _judge)


# Forward and backward in different threads


def _handed_over(lab: Lab) -> Iterator[Trial]:
    """Let the passes of a call be in two threads, and calls of another thread come between."""
    ids = np.array([2, 0, 2, 1, 2, 4, 3])
    choices = list(lab.choices(ids, ROWS, "padding_idx", "scale_grad_by_freq"))
    if "sparse" in lab.able:
        choices.insert(1, {"sparse": True})
    with _worker() as worker, _worker() as other:
        for options in lab.few(choices, LAST):
            lookup = Lookup(ids, _table(0), options, lab.profile)  # no -0: one-hot rows lose it
            for where, forward, backward in (
                ("forward in another thread", worker, _here),
                ("backward in another thread", _here, worker),
                ("in a thread that is not the first", worker, worker),
                ("each pass in another thread", worker, other),
            ):
                yield partial(_passes, lab, lookup, where, forward, backward)
            yield partial(_between, lab, lookup, _here, other)
            yield partial(_between, lab, lookup, worker, other)
        if not lab.backend.compiled:
            for size in (len(ids), MANY):
                yield partial(_held_by_each, lab, size, (_here, worker, other))
                yield from _elsewhere(lab, size, worker)
    if not lab.backend.compiled:
        modes: tuple[GradMode, ...] = ("no_grad", "grad")
        for mode in modes:
            yield partial(_held_after_threads, lab, mode)


def _elsewhere(lab: Lab, size: int, run: Run) -> Iterator[Trial]:
    """Look up with every option in a thread that is not the first."""
    ids = lab.draw.integers(0, ROWS, size)
    for options in lab.choices(ids, ROWS, "padding_idx", "scale_grad_by_freq"):
        lookup = Lookup(ids, _table(0), options, lab.profile)
        yield partial(_passes, lab, lookup, "in a thread that is not the first", run, run)
    for options in lab.choices(ids, ROWS, "padding_idx", "max_norm"):
        if "max_norm" in options:
            lookup = Lookup(ids, _table(0), options, lab.profile)
            yield partial(_bounded, lab, lookup, run, "grad")
            yield partial(_bounded, lab, lookup, run, "no_grad")


def _bounded(lab: Lab, lookup: Lookup, run: Run, mode: GradMode) -> Claims:
    """Bound rows in another thread."""
    weight, ids = lab.leaf(lookup.table), lab.tensor(lookup.ids)
    out = run(partial(_called, lab.bind(lookup), ids, weight, mode))
    what = f"a call for {lookup} {MODE_WORDS[mode]}, in a thread that is not the first"
    yield Bounded(what, read(out), read(weight), lookup)


@contextmanager
def _worker() -> Iterator[Run]:
    """Start a thread that does what it is given."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda work: pool.submit(work).result()


def _here(work: Callable[[], Any]) -> Any:
    return work()


def _passes(lab: Lab, lookup: Lookup, where: str, forward: Run, backward: Run) -> Claims:
    """Run each pass in its thread."""
    ids, weight = lab.tensor(lookup.ids), lab.leaf(lookup.table)
    upstream, call = lab.upstream(*lookup.shape), lab.bind(lookup)
    given = lab.tensor(upstream)
    out = forward(partial(call, ids, weight))
    yield Rows(f"the output for {lookup}, {where}", read(out), lookup)
    backward(partial(torch.autograd.backward, [out], [given]))
    seen = read_dense(weight.grad)
    yield GradientOf(f"weight.grad for {lookup}, {where}", seen, lookup, upstream)


def _between(lab: Lab, lookup: Lookup, run: Run, elsewhere: Run) -> Claims:
    """Look other rows up in the table elsewhere, between the passes that `run` runs."""
    weight, call = lab.leaf(lookup.table), lab.bind(lookup)
    other = Lookup((lookup.ids + 1)[::-1].copy(), lookup.table, lookup.options, lookup.profile)
    first = run(partial(call, lab.tensor(lookup.ids), weight))
    second = elsewhere(partial(call, lab.tensor(other.ids), weight))
    for out, each in ((first, lookup), (second, other)):
        upstream, weight.grad = lab.upstream(*each.shape), None
        run(partial(torch.autograd.backward, [out], [lab.tensor(upstream)]))
        told = f"{each}, another thread's call between the passes"
        yield Rows(f"the output for {told}", read(out), each)
        yield GradientOf(f"weight.grad for {told}", read_dense(weight.grad), each, upstream)


def _held_by_each(lab: Lab, size: int, runs: Sequence[Run]) -> Iterator[Claim]:
    """Look up without grad in one thread after the other, and read every output at the end."""
    table, kept = _table(0), list[tuple[Lookup, Any]]()
    weight = lab.tensor(table)
    for run in (*runs, *runs):
        lookup = Lookup(lab.draw.integers(0, ROWS, size), table, {}, lab.profile)
        ids, call = lab.tensor(lookup.ids), lab.bind(lookup)
        kept.append((lookup, run(partial(_called, call, ids, weight, "no_grad"))))
    for number, (lookup, out) in enumerate(kept):
        what = f"output {number} of {len(kept)} that {len(runs)} threads hold, for {lookup}"
        yield Rows(what, read(out), lookup)


def _called(call: Function, ids: torch.Tensor, weight: torch.Tensor, mode: GradMode) -> Any:
    """Look up in a grad mode, which is a thread's own."""
    with grad_context(mode):
        return call(ids, weight)


def _held_after_threads(lab: Lab, mode: GradMode) -> Iterator[Claim]:
    """Look up in threads of which one begins when the one before has ended; read all at the end.

    The system may give such a thread the identifier, and the memory, of the one before.
    """
    table, kept = _table(0), list[tuple[Lookup, Any]]()
    weight = lab.leaf(table)
    for size in (FEW,) * ENDED + (MANY,) * ENDED:  # the next thread's output fits where one lay
        lookup = Lookup(lab.draw.integers(0, ROWS, size), table, {}, lab.profile)
        ids, call = lab.tensor(lookup.ids), lab.bind(lookup)
        with _worker() as run:
            kept.append((lookup, run(partial(_called, call, ids, weight, mode))))
    for number, (lookup, out) in enumerate(kept):
        what = f"output {number} of threads that have ended, {MODE_WORDS[mode]}, for {lookup}"
        yield Rows(what, read(out), lookup)
    if mode == "grad":
        upstreams = [lab.upstream(*lookup.shape) for lookup, _ in kept]
        given = [lab.tensor(upstream) for upstream in upstreams]
        torch.autograd.backward([out for _, out in kept], given)
        whole = replace(kept[0][0], ids=np.concatenate([lookup.ids for lookup, _ in kept]))
        what = f"weight.grad of {len(kept)} calls in threads that have ended"
        yield GradientOf(what, read_dense(weight.grad), whole, np.concatenate(upstreams))


HANDED_OVER_PROBE = probe_of(
    _CLAUSE, _handed_over, "functional", "gradient", name="threads, handed over"
)
