"""reference/SPEC.md is what the registry says."""

from __future__ import annotations

from pathlib import Path

from embconform.reference.spec import render


def test_the_specification_is_not_stale() -> None:
    page = Path(__file__).parents[1] / "reference" / "SPEC.md"
    assert page.read_text(encoding="utf-8") == render(), (
        "run: python -m embconform.reference.spec > reference/SPEC.md"
    )
