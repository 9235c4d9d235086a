"""Let Hypothesis draw cases from strata, and shrink one that breaks a clause."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning

from embconform.conformance.cases.case import Case
from embconform.conformance.cases.choices import BACKEND, restart
from embconform.conformance.cases.directed import is_directed
from embconform.conformance.cases.draws import draw_case
from embconform.conformance.cases.programs import Draw
from embconform.conformance.cases.structure import Structure
from embconform.conformance.running.work import Draws
from embconform.reference.clause import Profile

Batch = list[tuple[Case, Structure]]
"""A case from each of some strata."""
Body = Callable[[Batch], None]
_MARK: Final = st.sampled_from(range(2**40))  # integers() would like the bounds better


@dataclass(repr=False)
class Driver:
    """Draws the cases of a run.

    A case depends on the seed, the profile, its stratum, the round and its number in the round, not
    on what else is drawn beside it.

    Attributes
    ----------
    profile : Profile
    seed : int
    compiled, one_shape : bool
        See :func:`embconform.conformance.cases.draws.draw_case`.
    """

    profile: Profile
    seed: int
    compiled: bool
    one_shape: bool = False
    _drawn: int = field(default=0, init=False)
    _draws: Draws = field(default=Draws((), 0), init=False)
    _body: Body = field(default=lambda batch: None, init=False)
    _drives: dict[Any, Callable[[], None]] = field(default_factory=dict, init=False)

    def drive(self, draws: Draws, body: Body, *phases: Phase) -> None:
        """Put cases before a function.

        Parameters
        ----------
        draws : Draws
        body : callable
            Given a batch. What it raises is shrunk where that is a phase, and comes out.
        phases : Phase
            Of Hypothesis.
        """
        self._draws, self._body, self._drawn = draws, body, -1
        examples = draws.examples + (not self._begins_simply)
        drive = self._drives.get((examples, phases))
        if drive is None:
            drive = self._drives[examples, phases] = self._made(examples, phases)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)  # a large case has a large repr
            seeded(digest(self.seed, draws.round))(drive)()

    @property
    def _begins_simply(self) -> bool:
        """Whether the simplest case, Hypothesis's first, is one of them: once, where it matters."""
        first, *_ = self._draws.structures
        return self._draws.round == 0 and (self.compiled or is_directed(first))

    def _made(self, examples: int, phases: tuple[Phase, ...]) -> Callable[[], None]:
        """Decorate once what is called thousands of times."""

        @settings(
            max_examples=examples,
            phases=phases,
            database=None,
            deadline=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            print_blob=False,
            backend=BACKEND,
        )
        @given(_batches(self))
        def drive(batch: Batch) -> None:
            self._body(batch)

        # or Hypothesis reads this source at each call, to name a place in the database
        drive._hypothesis_internal_database_key = b""  # type: ignore[attr-defined]
        return drive

    def batch(self, draw: Draw) -> Batch:
        """Draw a case from each stratum; none in place of a simplest one that is not wanted."""
        self._drawn += 1
        if draw(_MARK) == 0 and not self._begins_simply:
            return []
        return [(self._case(draw, structure), structure) for structure in self._draws.structures]

    def _case(self, draw: Draw, structure: Structure) -> Case:
        own = (self.seed, self.profile.value, structure.name, self._draws.round)
        restart(digest(*own, self._drawn))
        salt = digest(*own) % 2**20
        return draw_case(
            draw,
            structure,
            self.profile,
            salt=salt,
            compiled=self.compiled,
            one_shape=self.one_shape,
        )


@st.composite
def _batches(draw: Draw, driver: Driver) -> Batch:
    return driver.batch(draw)


def digest(*parts: Any) -> int:
    """Give a number below 2**48 that stands for some values, in any process.

    Parameters
    ----------
    parts : object
        With a repr that says what they are.

    Returns
    -------
    int
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6])
