"""The course of a run: what is left to do, what was seen, and when to end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

from embconform.conformance.cases.structure import Structure
from embconform.conformance.isolation.limits import MOST_CRASHES, MOST_TIMEOUTS
from embconform.conformance.options import RunOptions
from embconform.conformance.running.explorer import Explorer
from embconform.conformance.running.part import MOST_SHRUNK, Part
from embconform.conformance.running.tally import Shrunk
from embconform.reference.clause import Clause

Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Explore:
    """Do one unit of the work that these options make."""

    options: RunOptions
    number: int


@dataclass(frozen=True)
class Shrink:
    """Shrink a case that breaks a clause, from the stratum that it was drawn from."""

    options: RunOptions
    clause: str
    structure: Structure


Job = Explore | Shrink
Done = Part | Shrunk


class Performer:
    """Does jobs on a target, in whichever process they were given to."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer

    def __call__(self, job: Job) -> Done | None:
        """Do a job; None where it was given up because somebody wants to stop.

        Another round is run in another process of the target's: torch keeps some 5 MiB of what it
        compiled, exported and traced in a round, whatever is reset.
        """
        if self._explorer.options != job.options:
            self._explorer = replace(self._explorer, options=job.options)
            self._explorer.runner.renew()
        if isinstance(job, Explore):
            return self._explorer.do(job.number)
        return self._explorer.shrink(job.clause, job.structure)


class Jobs:
    """Jobs that several threads take from."""

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._left, self._lock = deque(jobs), threading.Lock()

    @property
    def left(self) -> int:
        """How many nobody has taken."""
        return len(self._left)

    def take(self) -> Job | None:
        """Take the next one; None where there is none left."""
        with self._lock:
            return self._left.popleft() if self._left else None

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Put back what could not be done, to be done next."""
        with self._lock:
            self._left.extendleft(reversed(jobs))


@dataclass
class Course:
    """What a run has seen so far, and whether it goes on.

    What is done out of order is counted in order, so that a run that ends at its first failure, or
    after too many crashes, ends where one process would have ended it.

    Attributes
    ----------
    options : RunOptions
    clauses : sequence of Clause
    units : sequence of int
        The numbers of the units of work that are this run's, in their order.
    part : Part
        What was seen in them; holds some of them already where a run is resumed.
    stop : callable
        Whether somebody wants to stop.
    progress : callable, optional
        Called with units of work done, units in all, and failing clauses so far.
    seconds : float
        The time after which the run is cut.
    ended : str
        Why the run ended before its time; empty where it did not.
    """

    options: RunOptions
    clauses: Sequence[Clause]
    units: Sequence[int]
    part: Part
    stop: Callable[[], bool]
    progress: Progress | None
    seconds: float
    ended: str = ""
    _waiting: dict[int, Part] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._declared = {row.clause for row in self.options.deviations}
        self._deadline = monotonic() + self.seconds
        self._left = deque(number for number in self.units if number not in self.part.done)
        if self.part.replayed:
            self.ended = self._why_end()
        self.tick()

    @property
    def over(self) -> bool:
        """Whether nothing more is to be explored."""
        return bool(self.ended) or self.stop()

    def to_explore(self) -> list[Job]:
        """List the units that are left."""
        return [Explore(self.options, number) for number in self._left]

    def explored(self, job: Job, done: Done) -> None:
        """Count what a unit brought, as soon as all units before it are counted."""
        assert isinstance(job, Explore)
        assert isinstance(done, Part)
        self._waiting[job.number] = done
        while self._left and self._left[0] in self._waiting and not self.ended:
            self.part.merge(self._waiting.pop(self._left.popleft()))
            self.ended = self._why_end()
        self.tick()

    def close(self) -> None:
        """Count what was done out of order, unless the run ended before it."""
        if not self.ended:
            for part in self._waiting.values():
                self.part.merge(part)
        self._waiting.clear()
        if self.stop():
            self.ended = "the run was interrupted"

    def to_shrink(self) -> list[Job]:
        """List what is to be shrunk and has not been."""
        jobs: list[Job] = []
        for clause in self.part.to_shrink(self.clauses, self._declared, self.most_shrunk):
            tally = self.part.tallies[clause]
            start = tally.smallest
            assert start is not None
            if start.structure is not None and start.lost != "timeout" and tally.shrunk is None:
                jobs.append(Shrink(self.options, clause, start.structure))
        return jobs

    def shrunk(self, job: Job, done: Done) -> None:
        """Keep what became of shrinking a clause's case."""
        assert isinstance(job, Shrink)
        assert isinstance(done, Shrunk)
        self.part.tallies[job.clause].shrunk = done

    @property
    def most_shrunk(self) -> int:
        """How many clauses are shrunk."""
        return 1 if self.options.fail_fast else MOST_SHRUNK

    @property
    def complete(self) -> bool:
        """Whether every unit was done."""
        return self.part.done.issuperset(self.units)

    def tick(self) -> None:
        """Tell how far the run is."""
        if self.progress:
            ours = len(self.units)
            ahead = len(self._waiting) if self._left else 0
            failing = self._failing()
            self.progress(min(len(self.part.done) + ahead, ours), ours, failing)

    def _failing(self) -> int:
        counting = self.part.counting(self.clauses, self._declared, strict=self.options.strict)
        return len(counting)

    def _why_end(self) -> str:
        """Say why the run ends here; nothing where it goes on."""
        if self.options.fail_fast and self._failing():
            return "the run stopped early"
        if self.part.timeouts >= MOST_TIMEOUTS:
            return f"the run was given up after {self.part.timeouts} timeouts"
        if self.part.crashes >= MOST_CRASHES:
            return f"the run was given up after {self.part.crashes} crashes"
        if monotonic() > self._deadline:
            return "the run's time was over"
        return ""
