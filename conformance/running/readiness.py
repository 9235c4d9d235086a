"""What every run needs, made while torch is imported in another process."""

from __future__ import annotations


def get_ready() -> None:
    """Import judges, probes and what draws cases, and make the pairs that strata come from."""
    from embconform.conformance import judging
    from embconform.conformance.cases import strata
    from embconform.conformance.probes.registry import probes
    from embconform.conformance.running import explorer  # noqa: F401 - with all that draws

    judging.judges()
    strata.pairs(compiled=False)
    probes()
