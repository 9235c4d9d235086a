"""What is found out before anything is measured: whether the sides load, and can do the calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from embconform.performance.gate.benchmarks import Benchmark
from embconform.performance.gate.compiling import smallest
from embconform.performance.gate.costs import Errors, compare_errors
from embconform.performance.gate.installed import Files
from embconform.performance.gate.messages import Check, Compile, Err, Hello, Loaded, Side
from embconform.performance.gate.workers import Crew, SideError
from embconform.performance.memory import Compiled

_COMPILES = "torch.compile keeps what it compiled by the names of modules"


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
    how : str
        How the sides were got from their files.
    errors : dict of str to Errors
        Under the names of benchmarks that differentiate.
    compiles : Benchmark or None
        That one side or both compile for; None where neither does.
    """

    base: Side
    head: Side
    hello: Hello
    together: bool
    apart: str
    benchmarks: tuple[Benchmark, ...]
    broken: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    how: str = ""
    errors: dict[str, Errors] = field(default_factory=dict)
    compiles: Benchmark | None = None

    @property
    def sides(self) -> list[Side]:
        """Base, head, and head once more."""
        return [self.base, self.head, replace(self.head, name="twin")]


@dataclass(frozen=True)
class Place:
    """Where the user calls.

    Attributes
    ----------
    top : Path
        The top of the user's working tree.
    inside : Path
        The user's folder, relative to it.
    """

    top: Path
    inside: Path = Path()


def get_ready(
    target: str,
    base: Files,
    head: Files,
    place: Place,
    hello: Hello,
    *,
    wanted: Sequence[Benchmark],
) -> Ready:
    """Load both sides, together where that works, and try every benchmark.

    Parameters
    ----------
    target : str
    base, head : Files
    place : Place
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
    ours = [Path(e) for e in hello.search_path if _is_source(Path(e), place.top)]
    hello = replace(hello, search_path=tuple(e for e in hello.search_path if Path(e) not in ours))
    ours = [entry.relative_to(place.top) for entry in ours]
    with_wheels = bool(head.site and (base.site or base.wrong))
    if not with_wheels:
        base, head = replace(base, site=None), replace(head, site=None)
    new = _side("head", target, head, place, ours)
    lookup = smallest(wanted)
    try:
        found, graphs = _probed(new, hello, lookup)
    except SideError as error:
        raise SideError("head", f"{error}{_unbuilt(head)}") from error
    if with_wheels and base.wrong:
        raise SideError("base", f"it does not build: {base.wrong}")
    root = [] if with_wheels else [_root(found, place.inside, head.tree)]
    old = _side("base", target, base, place, ours, root=root)
    new = _side("head", target, head, place, ours, root=root)
    before, graphs_before = _probed(old, hello, lookup)
    compiles = lookup if graphs or graphs_before else None
    apart = before.alone or found.alone or (_COMPILES if compiles else "")
    apart = apart or _why_apart([old, new], hello)
    how = "as pip installs them" if with_wheels else f"from their files as they lie{_unbuilt(head)}"
    ready = Ready(old, new, hello, not apart, apart, (), how=how, compiles=compiles)
    return _tried(ready, before, found, wanted)


def _unbuilt(head: Files) -> str:
    return f" (it does not build: {head.wrong})" if head.wrong else ""


def _side(
    name: str,
    target: str,
    files: Files,
    place: Place,
    ours: Sequence[Path],
    *,
    root: Sequence[Path] = (),
) -> Side:
    """Put a side's folders in order: where its modules are, where the user is, PYTHONPATH's."""
    here = files.tree / place.inside
    folder = here if here.is_dir() else files.tree
    site = [files.site] if files.site else []
    rest = [*(files.tree / p for p in root), folder, *(files.tree / entry for entry in ours)]
    return Side(
        name,
        target,
        tuple(map(str, (*site, files.tree))),
        tuple(dict.fromkeys(map(str, (*site, *rest)))),
        str(folder),
        str(place.top),
        frozenset(_top_level(files.site)) if files.site else frozenset(),
    )


def _top_level(site: Path) -> Iterator[str]:
    """Name the packages and modules that are installed in a folder."""
    for path in site.iterdir():
        if path.name.partition(".")[0].isidentifier() and (
            path.is_dir() or path.suffix in (".py", ".so", ".pyd")
        ):
            yield path.name.partition(".")[0]


def _probed(side: Side, hello: Hello, lookup: Benchmark | None) -> tuple[Loaded, int]:
    """Load a side alone, and count the graphs that it compiles for a call and for other sizes."""
    with Crew([side], hello, together=True) as crew:
        found = _checked(crew.loaded[side.name], side)
        if lookup is None or _lacks(found, lookup):
            return found, 0
        try:
            made: Compiled = crew.ask(Compile(side.name, lookup), side.name)
        except SideError:
            return found, 0  # a call that fails is told of where the benchmarks are tried
        return found, made.graphs


def _is_source(entry: Path, top: Path) -> bool:
    """Tell whether an entry of ``sys.path`` is of the tree; an environment in it is not."""
    return entry.is_relative_to(top) and "site-packages" not in entry.parts


def _checked(found: Loaded, side: Side) -> Loaded:
    """See that what was loaded is the side's."""
    inside = not found.place or any(Path(found.place).is_relative_to(tree) for tree in side.trees)
    if found.modules and inside:
        return found
    where = f"from {found.place}" if found.place else "from outside the repository"
    raise SideError(
        side.name, f"{side.target} was imported {where}, not from the files of {side.name}"
    )


def _root(found: Loaded, inside: Path, tree: Path) -> Path:
    """Find the folder that the target's module is imported from, relative to its tree."""
    if not found.place:
        return inside
    return Path(found.place).parents[found.depth].relative_to(tree)


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
    errors: dict[str, Errors] = {}
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
                if benchmark.chosen.gradient:
                    ulps = [crew.ask(Err(side, benchmark), side) for side in ("base", "head")]
                    errors[benchmark.name] = compare_errors(*ulps)
            elif said["base"]:
                left_out.append(f"{benchmark.name}: base {said['base']}")
            else:
                broken[benchmark.name] = said["head"]
    finally:
        crew.close()
    return replace(
        ready, benchmarks=tuple(fit), broken=broken, left_out=tuple(left_out), errors=errors
    )


def _lacks(side: Loaded, benchmark: Benchmark) -> str:
    """Say what a side can't do that a benchmark needs."""
    lacks = sorted(benchmark.chosen.needs(benchmark.workload) - side.able)
    lacks += [benchmark.workload.dtype] * (benchmark.workload.dtype not in side.dtypes)
    return f"has no {', '.join(lacks)}" if lacks else ""
