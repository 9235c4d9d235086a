"""The report as a picture: a roofline, and cost against size."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embconform.performance.run import BenchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS: Final = ("png", "svg")
_COLOURS: Final = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
_MARKERS: Final = {
    "forward": "o", "backward": "s", "sparse": "^", "max_norm": "D", "scale": "v", "sgd": "P",
}  # fmt: skip


def why_not() -> str | None:
    """Say why no picture can be drawn, or None."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return "it needs Matplotlib: pip install 'embconform[plot]'"
    return None


def draw(report: BenchReport) -> Figure:
    """Draw a report.

    Parameters
    ----------
    report : BenchReport

    Returns
    -------
    matplotlib.figure.Figure
        A roofline (bytes a second against bytes moved, under what copies reached), and under it
        cost against the numbers of indices and of rows.
    """
    from matplotlib.figure import Figure

    variables = sorted({growth.variable for growth in report.growth if growth.sizes})
    figure = Figure(figsize=(11, 10 if variables else 5.5), layout="constrained")
    grid = figure.add_gridspec(2 if variables else 1, max(1, len(variables)))
    colours = {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(report.targets)}
    _roofline(figure.add_subplot(grid[0, :]), report, colours)
    for k, variable in enumerate(variables):
        _growth(figure.add_subplot(grid[1, k]), report, variable, colours)
    return figure


def render(report: BenchReport, kind: str) -> bytes:
    """Draw a report as a file.

    Parameters
    ----------
    report : BenchReport
    kind : str
        One of :data:`FORMATS`.

    Returns
    -------
    bytes
    """
    from matplotlib import rc_context

    stream = BytesIO()
    # a fixed salt and no date: the same report is the same file
    with rc_context({"svg.hashsalt": "embconform"}):
        plain: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
        draw(report).savefig(stream, format=kind, dpi=150, **plain)
    return stream.getvalue()


def kind_of(path: Path) -> str:
    """Give the format that a file's name asks for; empty for none of :data:`FORMATS`."""
    ending = path.suffix.lower().removeprefix(".")
    return ending if ending in FORMATS else ""


def _roofline(axes: Axes, report: BenchReport, colours: dict[str, str]) -> None:
    sizes = sorted(report.bandwidth)
    rates = [max(report.bandwidth[s] for s in sizes if s >= size) / 1e9 for size in sizes]
    # the copy of a size bounds every pass that moves as much or less, down to the next smaller one
    x, y = [sizes[0] / 256, *sizes, 16 * sizes[-1]], [rates[0], *rates, rates[-1]]
    axes.step(x, y, where="pre", color="black", label="ceiling: copies of this run")
    seen = set()
    for result in report.results:
        if not (result.ranked and result.seconds and result.moved and result.moved.total):
            continue
        label = f"{result.target}, {result.cell.chosen.name}"
        axes.plot(
            result.moved.total,
            result.moved.total / result.seconds.value / 1e9,
            marker=_MARKERS.get(result.cell.chosen.name, "o"),
            color=colours[result.target],
            linestyle="none",
            fillstyle="none" if result.cell.cold else "full",
            label=None if label in seen else label,
        )
        seen.add(label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="bytes that must move",
        ylabel="GB/s of them",
        title="Roofline: how much of the copy bandwidth is reached",
    )
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize="small", ncols=2)


def _growth(axes: Axes, report: BenchReport, variable: str, colours: dict[str, str]) -> None:
    for growth in report.growth:
        if growth.variable != variable or not growth.sizes:
            continue
        slope = growth.exponent.value
        fitted = f", exponent {slope:.2f}" if math.isfinite(slope) else ""
        axes.plot(
            growth.sizes,
            growth.seconds,
            marker=_MARKERS.get(growth.chosen, "o"),
            color=colours[growth.target],
            linestyle="-" if growth.chosen == "forward" else "--",
            label=f"{growth.target}, {growth.chosen}{fitted}",
        )
    what = {"N": "indices N", "V": "rows V"}[variable]
    axes.set(
        xscale="log", yscale="log", xlabel=what, ylabel="seconds a call", title=f"Cost by {what}"
    )
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize="small")
