"""A part of a run as plain data in its report, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from embconform.backends.deviations import Deviation
from embconform.conformance.cases.structure import Structure
from embconform.conformance.options import BUDGETS, RunOptions
from embconform.conformance.report import Failure
from embconform.conformance.results import Found, failure_of
from embconform.conformance.running.part import Part
from embconform.conformance.running.tally import Shrunk, Smallest, Tally, Told
from embconform.reference.clause import Profile, registry

MOST_UNITS: Final = 10_000_000
_COUNTS: Final = ("exercised", "failed", "crashed", "late", "refused")
_TOTALS: Final = ("cases", "crashes", "timeouts", "replayed", "fixed", "printed")


class RecordError(ValueError):
    """A file that holds no part of a run; the message says what is wrong with it."""


def as_plain(found: Found, target: str) -> dict[str, Any]:
    """Write down what merging and resuming need, as plain data that JSON has.

    Parameters
    ----------
    found : Found
    target : str
        As the user named it.

    Returns
    -------
    dict
    """
    options, part = found.options, found.part
    return {
        "shard": found.shard,
        "of": found.of,
        "units": found.units,
        "done": _ranges(k for k, number in enumerate(found.mine) if number in part.done),
        "work": found.fingerprint,
        "name": found.name,
        "able": sorted(found.able),
        "select": options.select,
        "max_examples": options.max_examples,
        "deviations": [asdict(row) for row in options.deviations],
        "ended": found.ended,
        "replay": found.replay,
        "head": part.head,
        **{name: getattr(part, name) for name in _TOTALS},
        "tallies": {
            clause: _plain_tally(clause, tally, found, target)
            for clause, tally in sorted(part.tallies.items())
        },
    }


def _plain_tally(clause: str, tally: Tally, found: Found, target: str) -> dict[str, Any]:
    def plain(broken: Smallest | None) -> dict[str, Any] | None:
        if broken is None:
            return None
        device = found.options.device
        failure = asdict(failure_of(registry()[clause], broken, found.described, target, device))
        failure["ulp"] = None if failure["ulp"] is None else repr(float(failure["ulp"]))
        structure = broken.structure and asdict(broken.structure)
        return {
            "unit": broken.unit,
            "cost": broken.cost,
            "lost": broken.lost,
            "structure": structure,
            "failure": failure,
        }

    shrunk = tally.shrunk
    return {
        **{name: getattr(tally, name) for name in _COUNTS},
        "seconds": round(tally.seconds, 6),
        "refusal": list(tally.refusal) if tally.refusal else None,
        "smallest": plain(tally.smallest),
        "shrunk": shrunk and {"note": shrunk.note, "smallest": plain(shrunk.smallest)},
    }


def read(document: Mapping[str, Any]) -> Found:
    """Read a report's part back.

    Parameters
    ----------
    document : mapping
        A report, as JSON holds it.

    Returns
    -------
    Found

    Raises
    ------
    RecordError
        If it is a whole run's, or no part of a run at all.
    """
    try:
        if document["part"] is None:
            raise RecordError("it is a whole run's report; nothing is left to add to it")
        return _read(document, document["part"])
    except RecordError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = (
            f"{type(error).__name__}: {error}"
            if not isinstance(error, KeyError)
            else (f"it has no {error}")
        )
        raise RecordError(f"it is no report of embconform, or a damaged one ({what})") from error


def _read(document: Mapping[str, Any], plain: Mapping[str, Any]) -> Found:
    shard, of, units = (_count(plain[name]) for name in ("shard", "of", "units"))
    if not (1 <= shard <= of and units <= MOST_UNITS):
        raise ValueError(f"shard {shard} of {of}, {units} units")
    mine = range(shard - 1, units, of)
    options = RunOptions(
        profile=Profile(document["profile"]),
        budget=_one_of(document["budget"], BUDGETS),
        max_examples=plain["max_examples"] and _count(plain["max_examples"]),
        seed=_count(document["seed"]),
        device=_one_of(document["device"], ("cpu", "cuda")),
        select=_text(plain["select"]),
        deviations=tuple(Deviation(**row) for row in plain["deviations"]),
        strict=bool(document["strict"]),
    )
    part = Part(
        tallies={_one_of(c, registry()): _tally(row) for c, row in plain["tallies"].items()},
        done={mine[k] for first, last in plain["done"] for k in _between(first, last, len(mine))},
        head=_text(plain["head"]),
        **{name: _count(plain[name]) for name in _TOTALS},
    )
    return Found(
        options=options,
        name=_text(plain["name"]),
        able=frozenset(map(_text, plain["able"])),
        described=None,
        environment={_text(k): _text(v) for k, v in document["environment"].items()},
        part=part,
        units=units,
        fingerprint=_text(plain["work"]),
        shard=shard,
        of=of,
        ended=_text(plain["ended"]),
        replay=_text(plain["replay"]),
        interrupted=bool(document["interrupted"]),
        seconds=float(document["seconds"]),
        tampered=tuple(map(_text, document["tampered"])),
    )


def _tally(plain: Mapping[str, Any]) -> Tally:
    refusal, shrunk = plain["refusal"], plain["shrunk"]
    tally = Tally(
        **{name: _count(plain[name]) for name in _COUNTS},
        seconds=float(plain["seconds"]),
        smallest=_told(plain["smallest"]),
        shrunk=None if shrunk is None else Shrunk(_told(shrunk["smallest"]), _text(shrunk["note"])),
        refusal=None if refusal is None else (_number(refusal[0]), _text(refusal[1])),
    )
    if tally.failed and tally.smallest is None:
        raise ValueError("a failure without a case")
    return tally


def _told(plain: Mapping[str, Any] | None) -> Told | None:
    if plain is None:
        return None
    failure = dict(plain["failure"])
    if failure["ulp"] is not None:
        failure["ulp"] = float(failure["ulp"])
    for name in ("message", "got", "exact", "bound", "call", "script"):
        _text(failure[name])
    return Told(
        failure=Failure(**failure),
        cost=None if plain["cost"] is None else _count(plain["cost"]),
        lost=_one_of(plain["lost"], ("", "crash", "timeout")),
        structure=None if plain["structure"] is None else structure_from(plain["structure"]),
        unit=_number(plain["unit"]),
    )


def structure_from(plain: Mapping[str, Any]) -> Structure:
    """Read a stratum from plain data.

    Parameters
    ----------
    plain : mapping
        One value for each factor.

    Returns
    -------
    Structure

    Raises
    ------
    TypeError
        If a factor is missing or has a value of the wrong type.
    """
    standard = {field.name: field.default for field in fields(Structure)}
    if plain.keys() != standard.keys():
        raise TypeError("a stratum has other factors")
    for name, value in plain.items():
        if type(value) is not type(standard[name]):
            raise TypeError(f"{name} of a stratum is {value!r}")
    return Structure(**plain)


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Write ascending numbers as ranges, their ends included."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def _between(first: Any, last: Any, most: int) -> range:
    if not 0 <= _count(first) <= _count(last) < most:
        raise ValueError(f"units {first} to {last} of {most}")
    return range(first, last + 1)


def _count(value: Any) -> int:
    if _number(value) < 0:
        raise ValueError(f"{value} is negative")
    return int(value)


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _one_of(value: Any, allowed: Iterable[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is unknown")
    return _text(value)
