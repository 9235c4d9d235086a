"""Pictures of accuracy: errors in ulp, and the bounds that judges apply as lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embconform.conformance.accuracy import DTYPES, HALVES, NORMS, WIDTH, Accuracy, Sample
from embconform.conformance.render.wording import one_line
from embconform.reference.dtypes import format_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console

FORMATS: Final = ("png", "svg")
MOST_TARGETS: Final = 7
_COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#595959")
"""Okabe and Ito's: told apart by colour-blind people too; markers tell them apart in grey."""
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: Final = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 3)))
_LINEAR: Final = 0.5
"""Below this many ulp, what one rounding costs, the axis is linear: many errors are 0."""


def why_not() -> str | None:
    """Say why no picture can be drawn, or None."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return "it needs Matplotlib: pip install 'embconform[plot]'"
    return None


def kind_of(path: Path) -> str:
    """Give the format that a file's name asks for; empty for none of :data:`FORMATS`."""
    ending = path.suffix.lower().removeprefix(".")
    return ending if ending in FORMATS else ""


def render(figure: Figure, kind: str) -> bytes:
    """Write a new figure as a file; the same numbers give the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    kind : str
        One of :data:`FORMATS`.

    Returns
    -------
    bytes
    """
    from matplotlib import rc_context

    stream = BytesIO()
    with rc_context({"svg.hashsalt": "embconform", "svg.fonttype": "none"}):
        plain: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
        figure.savefig(stream, format=kind, dpi=105, **plain)
    return stream.getvalue()


def draw_sums(accuracy: Accuracy) -> Figure:
    """Draw the error of gradient sums against the number of duplicates, a panel a dtype.

    Parameters
    ----------
    accuracy : Accuracy

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = _panels("Gradient of a row that n indices name: error of the sum")
    for axes, dtype in zip(panels, DTYPES, strict=True):
        samples = [sample for sample in accuracy.sums if sample.dtype == dtype]
        for number, (target, own) in enumerate(_by_target(samples)):
            _series(axes, [s.at for s in own], own, target, number, line=True)
        known = _first(samples)
        for name, style, label in _bounds(dtype):
            places = [sample.at for sample in known]
            axes.plot(places, [getattr(s, name) for s in known], **style, label=label)
        _mark_the_end_of_counting(axes, known, dtype)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="n, indices that name the row", title=_titled(dtype))
    _finish(figure, panels)
    return figure


def draw_norms(accuracy: Accuracy) -> Figure:
    """Draw the error of the norm after a renorm by p, a panel a dtype.

    Parameters
    ----------
    accuracy : Accuracy

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = _panels(f"Norm of rows of {WIDTH} numbers after a renorm to 1: its error")
    targets = len({sample.target for sample in accuracy.norms})
    for axes, dtype in zip(panels, DTYPES, strict=True):
        samples = [sample for sample in accuracy.norms if sample.dtype == dtype]
        for number, (target, own) in enumerate(_by_target(samples)):
            aside = 0.5 * ((number + 0.5) / targets - 0.5)
            places = [NORMS.index(sample.at) + aside for sample in own]
            _series(axes, places, own, target, number, line=False)
        for name, style, label in _bounds(dtype):
            for sample in _first(samples):
                middle, bound = NORMS.index(sample.at), getattr(sample, name)
                named = label if sample.at == NORMS[0] else None
                axes.plot([middle - 0.4, middle + 0.4], [bound, bound], **style, label=named)
        axes.set_xticks(range(len(NORMS)), ["∞" if p == float("inf") else f"{p:g}" for p in NORMS])
        axes.set(xlabel="p of the norm", title=_titled(dtype), xlim=(-0.6, len(NORMS) - 0.4))
    _finish(figure, panels)
    return figure


_BOUNDS: Final[tuple[tuple[str, dict[str, Any], str], ...]] = (
    (
        "bound",
        {"color": "black", "linewidth": 1.6},
        "allowed (MUST): any order, in the table's dtype",
    ),
    (
        "bound_float32",
        {"color": "black", "linewidth": 1.2, "linestyle": (0, (4, 2))},
        "allowed (SHOULD): float32 or better, rounded once",
    ),
)


def _bounds(dtype: str) -> tuple[tuple[str, dict[str, Any], str], ...]:
    """List the bounds that judges apply: the one for float32 sums to tables of 16 bits only."""
    return _BOUNDS if dtype in HALVES else _BOUNDS[:1]


def _panels(title: str) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.2), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, 2)
    return figure, [axes for row in grid for axes in row]


def _by_target(samples: Iterable[Sample]) -> list[tuple[str, list[Sample]]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.target, []).append(sample)
    return list(found.items())


def _first(samples: Sequence[Sample]) -> list[Sample]:
    """Take the samples of one target that has results: the bounds are the same for all."""
    known = [sample for sample in samples if sample.error is not None]
    return [sample for sample in known if sample.target == known[0].target]


def _series(
    axes: Axes, places: list[float], own: list[Sample], target: str, number: int, *, line: bool
) -> None:
    """Draw a target's errors, those that break a clause filled."""
    known = [
        (at, sample.error, bool(sample.broken))
        for at, sample in zip(places, own, strict=True)
        if sample.error is not None
    ]
    if not known:
        return
    colour, marker = _COLOURS[number], _MARKERS[number]
    size = 10.0 - 0.7 * number  # what lies on another's points shows inside them
    style = _DASHES[number] if line else "none"
    axes.plot(
        [at for at, _, _ in known], [error for _, error, _ in known],
        color=colour, marker=marker, markersize=size, linestyle=style, linewidth=1.3,
        markerfacecolor="none", markeredgewidth=1.3, label=_label(target),
    )  # fmt: skip
    axes.plot(
        [at for at, _, broken in known if broken],
        [error for _, error, broken in known if broken],
        color=colour, marker=marker, markersize=size, linestyle="none",
    )  # fmt: skip


def _mark_the_end_of_counting(axes: Axes, known: list[Sample], dtype: str) -> None:
    """Show from where on a sum in the dtype itself no longer grows by terms below 1."""
    end = 2.0 ** format_of(dtype).precision
    beyond = [sample.at for sample in known if sample.exact >= end]
    if beyond:
        label = "the sum passes 1 / unit roundoff: 256 or 2,048"
        axes.axvline(beyond[0], color="#666666", linewidth=1.2, linestyle=":", label=label)


def _titled(dtype: str) -> str:
    return f"{dtype}, unit roundoff 2$^{{-{format_of(dtype).precision}}}$"


def _label(target: str) -> str:
    """Name a target; Matplotlib would read dollars and a leading underscore."""
    return one_line(target).replace("$", r"\$").removeprefix("_")


def _finish(figure: Figure, panels: list[Axes]) -> None:
    labels: dict[str, Any] = {}
    for axes in panels:
        axes.set_yscale("symlog", linthresh=_LINEAR, linscale=0.6)
        top = 3 * max(_LINEAR, *axes.get_ylim())
        axes.set_yticks([0, *(10**k for k in range(round(math.log10(top)) + 1))])
        axes.set(ylabel="error in ulp", ylim=(-0.1, top))
        axes.grid(True, which="major", alpha=0.3)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    figure.legend(
        labels.values(), labels.keys(), loc="outside lower center", ncols=2, fontsize="small",
        title="filled: a judge finds a clause broken", title_fontsize="small",
    )  # fmt: skip


def write(accuracy: Accuracy, console: Console) -> None:
    """Print the largest errors as tables.

    Parameters
    ----------
    accuracy : Accuracy
    console : rich.console.Console
    """
    from rich.table import Table
    from rich.text import Text

    for title, samples, where in (
        ("Gradient sums", accuracy.sums, "n"), ("Norms after a renorm to 1", accuracy.norms, "p"),
    ):  # fmt: skip
        console.print(Text(f"{title}: the largest error, and what is allowed there", "bold"))
        for target, own in _by_target(samples):
            table = Table(box=None, pad_edge=False, header_style="dim")
            for head in ("", "ulp", f"at {where}", "MUST", "SHOULD"):
                table.add_column(head, justify="right" if head else "left")
            table.add_column("broken", overflow="fold")
            for dtype in DTYPES:
                cells = _row([sample for sample in own if sample.dtype == dtype])
                table.add_row(f"  {dtype}", *map(Text, cells))
            console.print(Text(one_line(target)), soft_wrap=True)
            console.print(table)
        console.print()


def _row(samples: list[Sample]) -> tuple[str, ...]:
    """Say the largest error of a series, and all clauses that break in it."""
    known = [sample for sample in samples if sample.error is not None]
    if not known:
        return "none", "", "", "", one_line(samples[0].why)
    worst = max(known, key=lambda sample: sample.error or 0.0)
    broken = sorted({clause for sample in known for clause in sample.broken})
    should = f"{worst.bound_float32:.4g}" if worst.dtype in HALVES else ""
    told = (f"{worst.error:.4g}", f"{worst.at:g}", f"{worst.bound:.4g}", should)
    return *told, ", ".join(broken)
