"""Reports for the tests of the matrix: every status, and texts that a target could write."""

from __future__ import annotations

from typing import Any

from embconform.conformance.render.json import SCHEMA
from embconform.reference.clause import Profile, select

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
BROKEN = {"fail", "crash", "timeout", "deviation"}
SCRIPT = "import torch\nraise SystemExit('got 2.0, must be 0.0')  # é\n"
EVERY = {
    "lookup.rows": "fail",
    "lookup.dtype": "crash",
    "lookup.shape": "timeout",
    "padding.gradient-is-zero": "deviation",
    "padding.row-returned": "unexpected-pass",
    "sparse.layout": "untested",
    "errors.negative": "unsupported",
}


def document(
    target: str = "mine", profile: Profile = Profile.TORCH, statuses: dict[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Make a report as ``validate --json`` writes it; what `statuses` leaves out has passed."""
    given = statuses or {}
    clauses = [
        _clause(clause, given.get(clause.id, "pass"), target)
        for clause in select(profile, "*", "cpu")
    ]
    bad = any(entry["status"] in {"fail", "crash", "timeout"} for entry in clauses)
    return {
        "schema": SCHEMA, "embconform": "0", "target": target, "profile": profile.value,
        "device": "cpu", "supports": None, "seed": 0, "budget": "quick", "strict": False,
        "verdict": "nonconformant" if bad else "conformant", "interrupted": False, "tampered": [],
        "cases": 1234, "seconds": 1.5, "environment": {"torch": "2.13.0", "python": "3.11"},
        "notes": [], "replay": f"embconform validate {target} --seed 0", "clauses": clauses,
        "part": None,
    } | more  # fmt: skip


def _clause(clause: Any, status: str, target: str) -> dict[str, Any]:
    broken = status in BROKEN
    message = f"the gradient of {target} is wrong {HOSTILE}" if broken else ""
    failure = {
        "message": message, "got": "2.0", "exact": "0.0", "bound": "1e-07", "ulp": 8388608.5,
        "call": "embedding(ids, weight)", "indices": 3, "rows": 1,
    }  # fmt: skip
    reason = {"reason": "known since long", "link": "https://example.org/1", "versions": {}}
    return {
        "id": clause.id, "level": clause.level.value, "profile": clause.profile, "status": status,
        "counts_against": status in BROKEN - {"deviation"}, "exercised": 7,
        "failed": 2 if broken else 0, "seconds": 0.1,
        "detail": message or ("mine has no sparse" if status == "unsupported" else ""),
        "sentence": clause.sentence, "repro": SCRIPT if broken else None,
        "failure": failure if broken else None,
        "deviation": reason if status in ("deviation", "unexpected-pass") else None,
    }  # fmt: skip
