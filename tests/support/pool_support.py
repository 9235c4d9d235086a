"""What the tests of the pool run in its processes."""

from __future__ import annotations

import os
import sys


def square(number: int) -> int:
    """Square a number, but for two of them, and print what nobody wants to see."""
    if number == 3:
        os._exit(7)
    if number == 4:
        raise ValueError("four\nis too much")
    sys.stdout.write("a line that nobody wants\n")
    return number * number
