"""Failing cases that persist between runs, in one of Hypothesis's databases."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from hypothesis.database import ExampleDatabase

from embconform.conformance.cases.case_record import (
    FORMAT,
    CaseRecordError,
    KnownFailure,
    pack,
    unpack,
)
from embconform.conformance.options import RunOptions
from embconform.conformance.running.explorer import Explorer
from embconform.conformance.running.part import Part
from embconform.conformance.running.tally import Broken

BEFORE_ALL: Final = -1
"""Stands for the number of a unit of work where known failures are replayed."""


@dataclass
class KnownFailures:
    """The known failures of one target.

    Attributes
    ----------
    database : ExampleDatabase
    target : str
        As the user named it.
    unreadable : int
        Entries of the database that hold no case.
    """

    database: ExampleDatabase
    target: str
    unreadable: int = 0
    _costs: dict[str, int] = field(default_factory=dict)

    def key(self, options: RunOptions) -> bytes:
        """Give the key that they are stored under."""
        return json.dumps(
            ["embconform", FORMAT, self.target, options.profile.value, options.device]
        ).encode()

    def replay(self, explorer: Explorer) -> Part:
        """Run them, the plainest first, and forget those that hold now.

        Parameters
        ----------
        explorer : Explorer

        Returns
        -------
        Part
            What was counted; nothing of it is a unit of work.
        """
        part, key = Part(), self.key(explorer.options)
        for data, known in self._read(key):
            if explorer.stop():
                break
            if known.clause not in explorer.wanted:
                continue
            before = part.tally(known.clause).failed
            outcome = explorer.observe(known.case, known.structure)
            explorer.judge(known.case, known.structure, outcome, BEFORE_ALL, part)
            if explorer.stop():
                break
            part.replayed += 1
            if part.tally(known.clause).failed > before:
                self._costs.setdefault(known.clause, known.case.cost)
            else:
                part.fixed += 1
                self.database.delete(key, data)
        return part

    def remember(self, part: Part, options: RunOptions) -> None:
        """Keep the smallest case of each clause that is broken and not declared.

        Parameters
        ----------
        part : Part
        options : RunOptions
        """
        declared = {row.clause for row in options.deviations}
        for clause, tally in part.tallies.items():
            if clause in declared or not tally.failed:
                continue
            shown = tally.shown(shrunk=True)
            if not (isinstance(shown, Broken) and shown.case and shown.structure):
                continue
            if shown.case.cost < self._costs.get(clause, shown.case.cost + 1):
                data = pack(KnownFailure(clause, shown.case, shown.structure))
                self.database.save(self.key(options), data)

    def _read(self, key: bytes) -> list[tuple[bytes, KnownFailure]]:
        found = []
        for data in sorted(self.database.fetch(key)):
            try:
                found.append((data, unpack(data)))
            except CaseRecordError:
                self.unreadable += 1
        return sorted(found, key=lambda pair: pair[1].case.cost)
