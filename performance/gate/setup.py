"""What is found out before anything is measured: whether the sides load, and can do the calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from embconform.performance.gate.benchmarks import Benchmark
from embconform.performance.gate.messages import Check, Hello, Loaded, Side
from embconform.performance.gate.revisions import Tree
from embconform.performance.gate.workers import Crew, SideError


@dataclass(frozen=True)
class Ready:
    """Sides that can be measured.

    Attributes
    ----------
    base, head : Side
    hello : Hello
        For workers: without what the sides' own search paths have.
    together : bool
        Whether they can be in one process.
    apart : str
        Why not; empty where they can.
    benchmarks : tuple of Benchmark
        That both sides can do, rightly.
    broken : dict of str to str
        Benchmarks that base does rightly and head doesn't, with what is wrong.
    left_out : tuple of str
        Benchmarks that can't be measured, and why.
    """

    base: Side
    head: Side
    hello: Hello
    together: bool
    apart: str
    benchmarks: tuple[Benchmark, ...]
    broken: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def sides(self) -> list[Side]:
        """Base, head, and head once more."""
        return [self.base, self.head, replace(self.head, name="twin")]


def get_ready(
    target: str,
    base: Tree,
    head: Tree,
    folder: Path,
    hello: Hello,
    *,
    wanted: Sequence[Benchmark],
) -> Ready:
    """Load both sides, together where that works, and try every benchmark.

    Parameters
    ----------
    target : str
    base, head : Tree
    folder : Path
        Where the user stands, inside head's tree.
    hello : Hello
    wanted : sequence of Benchmark

    Returns
    -------
    Ready

    Raises
    ------
    SideError
        If a side can't be used.
    """
    new = Side("head", target, str(head.folder), (str(folder),), str(folder))
    with Crew([new], hello, together=True) as crew:
        found = _checked(crew.loaded["head"], new)
    root = _root(found, head.folder, new)
    ours = [Path(entry) for entry in hello.search_path if _is_source(Path(entry), head.folder)]
    hello = replace(hello, search_path=tuple(e for e in hello.search_path if Path(e) not in ours))
    roots = [head.folder / root, folder, *ours]
    new = replace(new, roots=tuple(dict.fromkeys(map(str, roots))))
    there = base.folder / folder.relative_to(head.folder)
    there = there if there.is_dir() else base.folder
    roots = [base.folder / place.relative_to(head.folder) for place in roots]
    old = Side("base", target, str(base.folder), tuple(dict.fromkeys(map(str, roots))), str(there))
    with Crew([old], hello, together=True) as crew:
        before = _checked(crew.loaded["base"], old)
    apart = before.alone or found.alone or _why_apart([old, new], hello)
    ready = Ready(old, new, hello, not apart, apart, ())
    return _tried(ready, before, found, wanted)


def _is_source(entry: Path, top: Path) -> bool:
    """Tell whether an entry of ``sys.path`` is of the tree; an environment in it is not."""
    return entry.is_relative_to(top) and "site-packages" not in entry.parts


def _checked(found: Loaded, side: Side) -> Loaded:
    """See that what was loaded is the tree's."""
    inside = not found.place or Path(found.place).is_relative_to(side.tree)
    if found.modules and inside:
        return found
    where = f"from {found.place}" if found.place else "from outside the repository"
    raise SideError(
        side.name, f"{side.target} was imported {where}, not from the files of {side.name}"
    )


def _root(found: Loaded, top: Path, side: Side) -> Path:
    """Find the folder that the target's module is imported from, inside its tree."""
    if not found.place:
        return Path(side.folder).relative_to(top)
    return Path(found.place).parents[found.depth].relative_to(top)


def _why_apart(sides: list[Side], hello: Hello) -> str:
    """Load the sides and head's twin in one process; say what went wrong, if anything."""
    every = [*sides, replace(sides[1], name="twin")]
    try:
        with Crew(every, hello, together=True) as crew:
            return next((loaded.alone for loaded in crew.loaded.values() if loaded.alone), "")
    except SideError as error:
        return f"both can't be loaded in one process ({error})"


def _tried(ready: Ready, base: Loaded, head: Loaded, wanted: Sequence[Benchmark]) -> Ready:
    """Make a call of each benchmark on each side, and hold it against the oracle."""
    fit: list[Benchmark] = []
    broken: dict[str, str] = {}
    left_out: list[str] = []
    crew = Crew([ready.base, ready.head], ready.hello, together=ready.together)
    try:
        for benchmark in wanted:
            said = {"base": _lacks(base, benchmark), "head": _lacks(head, benchmark)}
            for side in ("base", "head"):
                if any(said.values()):
                    continue
                try:
                    said[side] = crew.ask(Check(side, benchmark), side)
                except SideError as error:
                    said[side] = str(error)
                    crew.close()
                    crew = Crew([ready.base, ready.head], ready.hello, together=ready.together)
            if not any(said.values()):
                fit.append(benchmark)
            elif said["base"]:
                left_out.append(f"{benchmark.name}: base {said['base']}")
            else:
                broken[benchmark.name] = said["head"]
    finally:
        crew.close()
    return replace(ready, benchmarks=tuple(fit), broken=broken, left_out=tuple(left_out))


def _lacks(side: Loaded, benchmark: Benchmark) -> str:
    """Say what a side can't do that a benchmark needs."""
    lacks = sorted(benchmark.chosen.needs(benchmark.workload) - side.able)
    lacks += [benchmark.workload.dtype] * (benchmark.workload.dtype not in side.dtypes)
    return f"has no {', '.join(lacks)}" if lacks else ""
