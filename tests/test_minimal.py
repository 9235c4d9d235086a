"""The sizes of smallest cases, and the page of them."""

from __future__ import annotations

from embconform.mutants.registry import by_name
from embconform.proof.minimal import Smallest, Soonest, page_of, smallest

BUG = by_name()["LastWriterWins", "torch"]


def test_the_case_of_a_bug_of_every_call_is_minimal() -> None:
    found = smallest(BUG)
    assert found.clause
    assert found.indices in (2, 3)  # equal ones, of which the last wins, and padding
    assert found.rows in (1, 2)


def test_a_probe_has_no_case() -> None:
    found = smallest(by_name()["NarrowInit", "torch"])
    assert found.clause
    assert (found.indices, found.rows) == (None, None)


def test_page_tells_medians() -> None:
    cases = [Smallest(BUG, "gradient.sum", n, n + 1) for n in (2, 3, 9)]
    cases += [Smallest(BUG), Smallest(BUG, "module.dtype")]
    page = "\n".join(page_of("command", cases, [Soonest(BUG, 5.0, 3.0)]))
    assert "1 are missed by the quick budget, 1 found by a probe" in page
    assert "the median case of the other 3 has 3 indices and\n  4 rows; 2 have" in page
    assert "5.0 s, 3.0 s of them CPU time" in page
    assert "| LastWriterWins | torch | none |  |  |" in page
