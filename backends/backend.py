"""What the suite knows about an embedding under test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

from embconform.backends.constants import constants
from embconform.reference.clause import Profile

OPTIONS: Final = ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
TABLE_DTYPES: Final = ("float32", "float64", "float16", "bfloat16")
INDEX_DTYPES: Final = ("int64", "int32")


class TargetError(Exception):
    """A target that can't be found, imported or used; its message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend says it can do; clauses that need more are ``unsupported``.

    Attributes
    ----------
    options : frozenset of str
        The keyword arguments it takes, out of :data:`OPTIONS`.
    dtypes : tuple of str
        Table dtypes, by NumPy's names.
    index_dtypes : tuple of str
        Index dtypes, by NumPy's names.
    gradient, double_backward : bool
        Whether it can be differentiated once, and twice.
    strided : bool
        Whether tables and indices may be views that are not contiguous.
    deterministic : bool
        Whether the gradient has the same bits each time.
    huge_tables : bool
        Whether a table may have 2**31 elements and more, or 600,000 rows and thousands of indices.
    devices : tuple of str
        Device types by torch's names.
    """

    options: frozenset[str] = frozenset(OPTIONS)
    dtypes: tuple[str, ...] = TABLE_DTYPES
    index_dtypes: tuple[str, ...] = INDEX_DTYPES
    gradient: bool = True
    double_backward: bool = True
    strided: bool = True
    deterministic: bool = True
    huge_tables: bool = True
    devices: tuple[str, ...] = ("cpu", "cuda")

    @property
    def own_device(self) -> str:
        """The device that it runs on where nobody names one: the CPU if it serves that."""
        return "cpu" if "cpu" in self.devices else self.devices[0]


@dataclass(frozen=True)
class Backend:
    """An embedding under test.

    Attributes
    ----------
    name : str
        The name in reports.
    functional : callable, optional
        ``f(input, weight, **options)`` as :func:`torch.nn.functional.embedding`.
    module : callable, optional
        ``cls(num_embeddings, embedding_dim, **options)`` as :class:`torch.nn.Embedding`.
    profiles : tuple of Profile
        What it claims to be; the first is judged unless the user names another.
    capabilities : Capabilities
    deviations : Path, optional
        TOML file of known deviations.
    compiled : bool
        True where each new structure of a call costs seconds, so that structures come from a
        small pool and the data vary.
    sizes_compiled : bool
        True where each new size does, too, so that the quick budget has the first cases of the
        fewest structures that exercise every clause.
    summary : str
        One line for ``embconform backends``.
    synchronize : callable, optional
        Waits until everything the backend started is done.
    prepare : callable, optional
        Called once before a run.
    threads : int, optional
        Most threads that torch may use while it runs; None for the suite's choice.
    interpreter : str
        What runs its kernels where that is not the device that they are for; empty elsewhere.
    source : str
        Python lines that define ``embedding`` and ``Embedding`` for repro scripts; empty for a
        target that its own name imports.

    Raises
    ------
    TargetError
        If it has neither a functional nor a module form.
    """

    name: str
    functional: Callable[..., Any] | None = None
    module: Callable[..., Any] | None = None
    profiles: tuple[Profile, ...] = (Profile.TORCH, Profile.TEXTBOOK)
    capabilities: Capabilities = field(default_factory=Capabilities)
    deviations: Path | None = None
    compiled: bool = False
    sizes_compiled: bool = False
    summary: str = ""
    synchronize: Callable[[], None] | None = None
    prepare: Callable[[], None] | None = None
    threads: int | None = None
    interpreter: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.functional is None and self.module is None:
            raise TargetError(f"backend {self.name!r} has neither a functional nor a module form")

    @property
    def forms(self) -> frozenset[str]:
        """Which of ``functional`` and ``module`` there are."""
        made = {"functional": self.functional, "module": self.module}
        return frozenset(name for name, form in made.items() if form is not None)

    @cached_property
    def known_dtypes(self) -> frozenset[str]:
        """Table and index dtypes."""
        return _known_dtypes(self.capabilities)

    @cached_property
    def able(self) -> frozenset[str]:
        """Names of everything it can do, as clauses name their needs."""
        return _able(self.capabilities, self.forms)

    @cached_property
    def constants(self) -> tuple[int, ...]:
        """Whole numbers in its own code, near to which sizes are drawn; none where that is slow."""
        return () if self.interpreter else constants(self.functional, self.module)

    def describe(self) -> Description:
        """Give what is known of it without its code, as plain data that can be pickled."""
        return Description(
            self.name,
            self.forms,
            self.profiles,
            self.capabilities,
            self.deviations,
            self.compiled,
            self.sizes_compiled,
            self.threads,
            self.source,
            self.constants,
        )


@dataclass(frozen=True)
class Description:
    """What is known of a backend without its code; attributes as in :class:`Backend`."""

    name: str
    forms: frozenset[str]
    profiles: tuple[Profile, ...]
    capabilities: Capabilities
    deviations: Path | None
    compiled: bool
    sizes_compiled: bool
    threads: int | None
    source: str
    constants: tuple[int, ...]

    @cached_property
    def known_dtypes(self) -> frozenset[str]:
        """Table and index dtypes."""
        return _known_dtypes(self.capabilities)

    @cached_property
    def able(self) -> frozenset[str]:
        """Names of everything it can do, as clauses name their needs."""
        return _able(self.capabilities, self.forms)


class Described(Protocol):
    """A Backend or its Description: what cases and judges may know of a target."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def forms(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def profiles(self) -> tuple[Profile, ...]: ...  # noqa: D102
    @property
    def capabilities(self) -> Capabilities: ...  # noqa: D102
    @property
    def compiled(self) -> bool: ...  # noqa: D102
    @property
    def sizes_compiled(self) -> bool: ...  # noqa: D102
    @property
    def threads(self) -> int | None: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def constants(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def known_dtypes(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def able(self) -> frozenset[str]: ...  # noqa: D102


def _known_dtypes(capabilities: Capabilities) -> frozenset[str]:
    return frozenset(capabilities.dtypes) | frozenset(capabilities.index_dtypes)


def _able(capabilities: Capabilities, forms: frozenset[str]) -> frozenset[str]:
    flags = ("gradient", "double_backward", "strided", "deterministic", "huge_tables")
    known = _known_dtypes(capabilities)
    return (
        capabilities.options
        | {flag for flag in flags if getattr(capabilities, flag)}
        | {name for name in ("float64", "int32") if name in known}
        | ({"half"} if {"float16", "bfloat16"} & known else set())
        | forms
    )
