"""Sizes near the whole numbers in a target's own code: where it changes its way, if it does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle, islice
from typing import Any, Final, Literal, cast, get_args

from embconform.conformance.cases.programs import Draw, among, between
from embconform.conformance.cases.soundness import is_sound
from embconform.conformance.cases.structure import NEAR, Structure

Axis = Literal["indices", "equal", "columns", "rows", "table", "output"]
"""What there are about as many of: indices, equal ones, columns, rows, elements of the table or of
the output; or bytes in a row, in the table or in the output."""
_MOST: Final[dict[Axis, int]] = {
    "indices": 2**17,
    "equal": 2**17,
    "columns": 2**17,
    "rows": 2**20,
    "table": 2**21,
    "output": 2**21,
}
"""Beyond these a case takes seconds."""
_LEAST: Final[dict[Axis, int]] = {"table": 256, "output": 256}
"""Below these other cases have as many elements anyway."""
TRIES: Final = 50
_ITEM: Final = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_PACKED: Final = (4, 16, 64, 256)
"""Columns of tables and outputs that have a number of elements."""


@dataclass(frozen=True)
class Near:
    """A number that a size is near to.

    Attributes
    ----------
    axis : str
    number : int
    """

    axis: Axis
    number: int

    @property
    def size(self) -> str:
        """Its name, as the size of a structure."""
        return f"{self.axis}{NEAR}{self.number}"

    def shape(self, draw: Draw, s: Structure, least: int) -> tuple[int, int, int]:
        """Draw how many rows, columns and indices there are.

        Parameters
        ----------
        draw : callable
            Hypothesis's, of a composite strategy.
        s : Structure
        least : int
            The smallest size that is drawn where nothing else counts.

        Returns
        -------
        rows, columns, indices : int
        """
        rows = max(least, 2 + (s.padding != "none"))
        few, near = between(least, 4), self._near(draw, s.dtype)
        match self.axis:
            case "indices" | "equal":
                many = (draw(between(rows, 40)), draw(between(260, 700)), 40_001)
                width = self._beside(draw, few, near)
                return many[draw(between(0, 3)) % 3], width, near
            case "columns":
                return draw(between(rows, 6)), near, self._beside(draw, between(2, 6), near)
            case "rows":
                return max(near, rows), draw(few), draw(between(2, 40))
        columns = draw(among(tuple(one for one in _PACKED if one * rows <= self.number)))
        high = max(-(-near // columns), rows)
        if self.axis == "table":
            return high, columns, draw(between(2, 40))
        return draw(between(rows, 40)), columns, high

    def _beside(self, draw: Draw, few: Any, near: int) -> int:
        """Draw another size, small or, where that is affordable, near to the number, too."""
        if self.number * near > 2**18 or draw(between(0, 1)):
            return int(draw(few))
        return max(self.number + int(draw(among((1, 0, -1, 2)))), 2)

    def _near(self, draw: Draw, dtype: str) -> int:
        """Draw a number about as large; of bytes, where they might be meant, as many elements."""
        number, item = self.number, _ITEM[dtype]
        in_bytes = self.axis in ("columns", "table", "output") and number >= 32 * item
        if in_bytes and draw(between(0, 1)):
            number //= item
        offsets = (1, 0, number + 1, 1, 17, -1, 2)
        return max(number + int(draw(among(offsets))), 1)


@lru_cache(1024)
def near(size: str) -> Near | None:
    """Read the name of a size; None for those that are near to no constant.

    Parameters
    ----------
    size : str

    Returns
    -------
    Near or None
    """
    axis, word, number = size.partition(NEAR)
    return Near(cast(Axis, axis), int(number)) if word else None


def near_constants(
    constants: Sequence[int],
    families: Sequence[Mapping[str, Sequence[Any]]],
    fits: Callable[[Structure], bool],
    *,
    chances: int,
    seed: int,
) -> Iterator[Structure]:
    """Give structures whose sizes are near to constants.

    Parameters
    ----------
    constants : sequence of int
        Numbers of the target's code.
    families : sequence of mapping
        Values of the other factors of a call, which are chosen by chance.
    fits : callable
        Tells whether a sound structure is wanted.
    chances : int
        Structures beside the plainest of each size.
    seed : int

    Yields
    ------
    Structure
        The plainest first.
    """
    sizes = [one for number in constants for one in _sizes(number)]
    yield from (Structure(size=one.size) for one in sizes)
    rng = random.Random(seed)
    for one in islice(cycle(sizes), chances * TRIES):
        if chances and (found := _by_chance(one, families, rng)) and fits(found):
            chances -= 1
            yield found


def _sizes(number: int) -> Iterator[Near]:
    for axis in get_args(Axis):
        if _LEAST.get(axis, 0) <= number <= _MOST[axis]:
            yield Near(axis, number)


def _by_chance(
    one: Near, families: Sequence[Mapping[str, Sequence[Any]]], rng: random.Random
) -> Structure | None:
    family = rng.choice(families)
    chosen = {key: rng.choice(values) for key, values in family.items()}
    structure = replace(Structure(**chosen), size=one.size)
    return structure if is_sound(structure) else None
