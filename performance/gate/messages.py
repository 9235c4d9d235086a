"""What the gate and its workers say to each other, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from embconform.performance.gate.benchmarks import Benchmark
from embconform.performance.memory import Compiled, Memory


@dataclass(frozen=True)
class Side:
    """The files that a target is imported from.

    Attributes
    ----------
    name : str
        ``base``, ``head`` or ``twin``: head once more.
    target : str
    trees : tuple of str
        Folders whose modules are this side's: the top of the source tree, and where it is
        installed.
    roots : tuple of str
        Folders of these that go first on ``sys.path``.
    folder : str
        The working directory.
    top : str
        The user's working tree, from which no module of a side may come.
    packages : frozenset of str
        Top-level names that mean this side's modules, even where others of these names are
        loaded; empty where nothing is installed.
    """

    name: str
    target: str
    trees: tuple[str, ...]
    roots: tuple[str, ...]
    folder: str
    top: str
    packages: frozenset[str] = frozenset()

    @property
    def is_embconform(self) -> bool:
        """Whether the package under test is the one that tests."""
        return "embconform" in self.packages


@dataclass(frozen=True)
class Hello:
    """What a new worker needs to know.

    Attributes
    ----------
    search_path : tuple of str
        ``sys.path`` of the process that asks.
    threads, seed : int
    """

    search_path: tuple[str, ...]
    threads: int
    seed: int


@dataclass(frozen=True)
class Load:
    """Import a side; the answer is Loaded or Unusable."""

    side: Side


@dataclass(frozen=True)
class Loaded:
    """A side was imported.

    Attributes
    ----------
    modules : int
        Modules that came from its tree.
    place : str
        The file of the module that the target names.
    depth : int
        How many folders above that file its import root is; 0 for a file that is no module.
    alone : str
        Why no other side may be in the same process; empty where one may.
    able : frozenset of str
        As :attr:`embconform.backends.backend.Backend.able`.
    dtypes : frozenset of str
    """

    modules: int
    place: str
    depth: int
    alone: str
    able: frozenset[str]
    dtypes: frozenset[str]


@dataclass(frozen=True)
class Unusable:
    """Foreign code raised; one line."""

    message: str


@dataclass(frozen=True)
class Fault:
    """The gate failed in a worker; a traceback."""

    text: str


@dataclass(frozen=True)
class Calibrate:
    """Find how many calls make a batch of `seconds`; the answer is an int."""

    side: str
    benchmark: Benchmark
    seconds: float


@dataclass(frozen=True)
class Batch:
    """Time calls; the answer is seconds a call, extra calls counted as slowness.

    Attributes
    ----------
    side : str
    benchmark : Benchmark
    number : int
        Calls.
    extra : int
        Further calls that are timed and not counted: a planted slowdown.
    start : int
        Which inputs come first.
    """

    side: str
    benchmark: Benchmark
    number: int
    extra: int = 0
    start: int = 0


@dataclass(frozen=True)
class Check:
    """Hold a call against the oracle; the answer is a str, empty where it is right."""

    side: str
    benchmark: Benchmark


@dataclass(frozen=True)
class Weigh:
    """Measure memory; the answer is a Memory."""

    side: str
    benchmark: Benchmark


@dataclass(frozen=True)
class Err:
    """Measure how inexact the gradient is; the answer is a float, in ulp."""

    side: str
    benchmark: Benchmark


@dataclass(frozen=True)
class Compile:
    """Make the first call of a process, and calls of other sizes; the answer is a Compiled."""

    side: str
    benchmark: Benchmark


@dataclass(frozen=True)
class Count:
    """Count instructions, in a worker under Valgrind; the answer is a Counted.

    Attributes
    ----------
    side : Side
        Imported for this alone.
    benchmarks : tuple of Benchmark
    folder : str
        Where Valgrind writes, and where the inputs are.
    """

    side: Side
    benchmarks: tuple[Benchmark, ...]
    folder: str


@dataclass(frozen=True)
class Counted:
    """Instructions of a call, and what is wrong where they could not be counted, by benchmark."""

    calls: dict[str, float]
    wrong: dict[str, str]


Message = Load | Calibrate | Batch | Check | Weigh | Err | Compile | Count
Answer = Loaded | Unusable | Fault | int | float | str | Memory | Compiled | Counted
"""What comes back."""
