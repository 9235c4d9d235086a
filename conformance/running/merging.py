"""Put the parts of a run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final

from embconform.conformance.report import Report
from embconform.conformance.results import Found, printed_note, report
from embconform.conformance.running.part import Part

VERSIONS: Final = ("embconform", "torch", "numpy", "hypothesis")
"""Packages on which the cases of a run, or what they show, depend."""


class MergeError(ValueError):
    """Parts that do not belong together; the message is one line for the user."""


@dataclass(frozen=True)
class Piece:
    """A part of a run, and the file that it came from."""

    file: str
    target: str
    found: Found


def merged(pieces: Sequence[Piece]) -> Report:
    """Merge the shards of a run into the report of the run.

    Parameters
    ----------
    pieces : sequence of Piece
        Each shard once, in any order; a shard may have been cut.

    Returns
    -------
    Report
        The same as that of one run but for times; cut where a shard was.

    Raises
    ------
    MergeError
        If they are not the shards of one run, or not all of them.
    """
    first = pieces[0]
    for piece in pieces[1:]:
        check_same(first, piece)
    _check_shards(pieces)
    ordered = sorted(pieces, key=lambda piece: piece.found.shard)
    part = Part()
    for piece in ordered:
        part.merge(deepcopy(piece.found.part))
    founds = [piece.found for piece in ordered]
    whole = replace(
        max(founds, key=lambda found: found.units),
        part=part,
        shard=1,
        of=1,
        environment=_environment([found.environment for found in founds]),
        ended=next((found.ended for found in founds if found.ended), ""),
        interrupted=any(found.interrupted for found in founds),
        seconds=sum(found.seconds for found in founds),
        tampered=tuple(dict.fromkeys(name for found in founds for name in found.tampered)),
    )
    made = report(whole, first.target)
    printed = printed_note(part.printed, part.head)
    notes = (*made.notes, *printed)
    return replace(made, notes=notes, tampered=whole.tampered, replay=whole.replay)


def check_same(one: Piece, other: Piece) -> None:
    """Refuse two parts of different runs.

    Parameters
    ----------
    one, other : Piece

    Raises
    ------
    MergeError
        With one line that says what differs.
    """
    for name, value in _facts(one).items():
        others = _facts(other).get(name, value)
        if value != others:
            raise MergeError(
                f"{one.file} and {other.file} are parts of different runs: {name} is {value} in "
                f"one and {others} in the other"
            )


def _facts(piece: Piece) -> dict[str, object]:
    """List what the parts of a run have in common."""
    found, options = piece.found, piece.found.options
    rows = ", ".join(row.clause for row in options.deviations) or "none"
    facts: dict[str, object] = {
        "the target": piece.target,
        "the profile": options.profile.value,
        "the device": options.device,
        "the seed": options.seed,
        "the budget": options.budget,
        "--max-examples": options.max_examples,
        "--select": options.select,
        "--strict": options.strict,
        "the list of deviations": rows,
    }
    for name in VERSIONS:
        facts[f"the version of {name}"] = found.environment.get(name)
    facts["the number of shards"] = found.of
    if found.fingerprint:  # else it was interrupted before its work was known
        facts["the number of units"] = found.units
        facts["the work"] = found.fingerprint
    return facts


def _check_shards(pieces: Sequence[Piece]) -> None:
    """Refuse a shard that comes twice or not at all."""
    of = pieces[0].found.of
    files: dict[int, str] = {}
    for piece in pieces:
        shard = piece.found.shard
        if shard in files:
            raise MergeError(f"{files[shard]} and {piece.file} are both shard {shard}/{of}")
        files[shard] = piece.file
    missing = [f"{k}/{of}" for k in range(1, of + 1) if k not in files] if of < 10_000 else ["?"]
    if missing:
        few = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise MergeError(f"{pieces[0].target}: shard {few} is missing")


def _environment(places: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Say where a run took place that took place in several."""
    names = dict.fromkeys(name for place in places for name in place)
    return {
        name: " or ".join(dict.fromkeys(place[name] for place in places if name in place))
        for name in names
    }
