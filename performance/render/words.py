"""Numbers as people read them."""

from __future__ import annotations

import math

from embconform.performance.statistics import Estimate

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def seconds(value: float) -> str:
    """Write a time with three digits and a unit."""
    if not math.isfinite(value):
        return ""
    for unit, name in _UNITS:
        if value >= unit:
            return f"{digits(value / unit)} {name}"
    return f"{digits(value * 1e9)} ns"


def digits(value: float) -> str:
    """Write a number with three significant digits, without an exponent."""
    if not math.isfinite(value):
        return ""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def ratio(value: Estimate | None) -> str:
    """Write a ratio with its interval."""
    if value is None or not math.isfinite(value.value):
        return ""
    if not value.bounded:
        return f"{value.value:.2f} (too few samples for an interval)"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def share(value: float) -> str:
    """Write a share in percent; below one percent with a digit more."""
    if not math.isfinite(value):
        return ""
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def bytes_(value: float) -> str:
    """Write an amount of memory."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= unit:
            return f"{digits(value / unit)} {name}"
    return f"{value:.0f} B"


def exponent(value: Estimate) -> str:
    """Write a fitted exponent with its interval."""
    if not math.isfinite(value.value):
        return ""
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
