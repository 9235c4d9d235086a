"""Targets that mean to deceive: how kernels have passed other harnesses without being right.

What is planted here is caught by a clause; :mod:`harness` has those that attack the suite itself,
and :data:`OUT_OF_SCOPE` the ways that no check of results can see.
"""

from typing import Final

from embconform.mutants.cheats import outputs, replay, warm_up

__all__ = ["OUT_OF_SCOPE", "outputs", "replay", "warm_up"]

OUT_OF_SCOPE: Final = {
    "falls back to the library's operator": (
        "the results are right, so nothing is broken; who wrote the code that gave them is not "
        "a question of conformance"
    ),
    "L2-persisting windows": "they change times only; embconform bench flushes the cache",
    "lazy tensors that compute when read": (
        "the suite reads every output at once, so the values are judged; what is saved is time, "
        "and embconform bench reads the outputs inside the timed region"
    ),
    "recognises the suite by its modules and behaves": (
        "whoever runs the suite can be recognised by foreign code in the same process; the drawn "
        "cases differ by seed, so only being right helps"
    ),
}
"""Ways to fool a harness that validation does not look for, each with the reason."""
