"""Take down what a target does, beside it: the torch side of the claims."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from itertools import count
from time import perf_counter
from typing import Any, Final

import numpy as np

from embconform.conformance import marker
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.outcome import Raised, raised_from
from embconform.conformance.probes.claims import Claim, MustRaise, Odd, Record, Returned
from embconform.conformance.settling import Settling

MOST: Final = 2**22
"""Elements of a tensor that are copied; whatever has more is wrong by its shape."""
_trials: Final = count()
LONGEST: Final = 100
"""Characters of what a target gave that a message shows."""


class _TrialOverError(Exception):
    """Ends a trial whose last call was refused, and took the device along."""

    def __init__(self, claim: Claim) -> None:
        super().__init__()
        self.claim = claim


_now: ContextVar[Settling | None] = ContextVar("_now", default=None)
"""Waits for the target of the trial that is being run."""


def record(clause: str, trial: Callable[[], Iterable[Claim]], settle: Settling) -> Record:
    """Run a trial up to the first exception, with torch's random state and warnings kept apart.

    Parameters
    ----------
    clause : str
    trial : callable
        Calls the target, and gives its claims one by one.
    settle : Settling
        Waits for the target.

    Returns
    -------
    Record
    """
    marker.mark(next(_trials))
    claims: list[Claim] = []
    raised: Raised | None = None
    ruined = False
    token, started = _now.set(settle), perf_counter()
    # of the random states the CPU's alone: a device that was lost has none to go back to
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for claim in trial():
                claims.append(claim)  # noqa: PERF402 - those before an exception count
            settle()
        except _TrialOverError as over:
            claims.append(over.claim)
            ruined = True
        except (Exception, SystemExit) as error:
            raised = raised_from(error)
            ruined = settle.lost()
    _now.reset(token)
    return Record(clause, tuple(claims), raised, perf_counter() - started, ruined)


def read(got: object) -> Returned:
    """Copy out what a target gave where a dense tensor is due."""
    kind = type(got).__name__
    if not isinstance(got, torch.Tensor):
        return Returned(kind)
    dtype, shape = str(got.dtype).removeprefix("torch."), tuple(got.shape)
    if got.numel() > MOST:
        return Returned(kind, dtype, shape)
    try:
        return Returned(kind, dtype, shape, to_numpy(got))
    except (Exception, SystemExit) as error:
        return Returned(kind, dtype, shape, raised=raised_from(error))


def read_dense(gradient: Any) -> Returned:
    """Copy out a gradient of any layout as the dense tensor that it stands for."""
    return read(gradient.to_dense() if isinstance(gradient, torch.Tensor) else gradient)


def attempt(what: str, call: Callable[[], Any]) -> MustRaise:
    """Make a call that must raise, at once or when its work is waited for.

    Where it takes the device along, the trial ends with it.
    """
    settle = _now.get()
    try:
        got = call()
        if settle:
            settle()
    except Exception:
        refused = MustRaise(what, None)
        if settle and settle.lost():
            raise _TrialOverError(refused) from None
        return refused
    readable = isinstance(got, torch.Tensor) and got.numel() <= MOST
    seen = str(got.tolist()) if readable else type(got).__name__
    return MustRaise(what, _brief(seen))


def plain(value: object) -> Any:
    """Turn an attribute of a target into plain data: numbers, strings, lists and tuples of them.

    Parameters
    ----------
    value : object

    Returns
    -------
    object
        An :class:`~embconform.conformance.probes.claims.Odd` for anything else.
    """
    if isinstance(value, np.generic):
        return value.item()
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, tuple):
        return tuple(plain(each) for each in value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value if value is None else Odd(_brief(" ".join(str(value).split())))


def _brief(text: str) -> str:
    return text if len(text) < LONGEST else f"{text[: LONGEST - 1]}…"
