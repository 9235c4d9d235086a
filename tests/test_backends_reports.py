"""The committed reports are those of the backends at hand, and one command writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from embconform.backends.catalogue import catalogue
from embconform.backends.deviations import load
from embconform.proof import reports

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / reports.FOLDER
COMMITTED = sorted(FOLDER.glob("*.json"))


def clause(name: str, status: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "status": status, "detail": "", "deviation": None} | more


RAW: dict[str, Any] = {
    "target": "jax",
    "profile": "torch",
    "device": "cpu",
    "seed": 0,
    "budget": "quick",
    "verdict": "nonconformant",
    "cases": 1234,
    "seconds": 61.7,
    "environment": {"torch": "2.13.0", "python": "3.11.7"},
    "clauses": [
        clause("lookup.rows", "pass"),
        clause("lookup.dtype", "pass"),
        clause("errors.atomic", "untested"),
        clause("gradient.sum", "fail", detail="off by one"),
        clause("errors.negative", "deviation", deviation={"reason": "it wraps", "link": "docs/f"}),
    ],
}


def test_a_report_is_condensed_to_what_tells_runs_apart() -> None:
    kept = reports.condense(RAW, ("no-such-distribution",))
    assert kept["pass"] == ["lookup.rows", "lookup.dtype"]
    assert kept["fail"] == {"gradient.sum": {"detail": "off by one"}}
    assert kept["deviation"]["errors.negative"]["reason"] == "it wraps"
    assert kept["environment"]["no-such-distribution"] == "missing"
    assert kept["seconds"] == 62


def test_a_report_names_no_folder_of_the_machine() -> None:
    broken = clause("gradient.sum", "fail", detail=f"raised in {sys.prefix}/lib/torch.py")
    kept = reports.condense(RAW | {"clauses": [broken]}, ())
    assert kept["fail"]["gradient.sum"]["detail"] == "raised in .../lib/torch.py"


def test_the_page_counts_and_names() -> None:
    page = reports.page([reports.condense(RAW, ())])
    row = "| [jax](jax.json) | nonconformant | 2 | 1 | 1 | 1 | 0 | 1,234 | torch 2.13.0 |"
    assert row in page.splitlines()
    assert "- `errors.negative`: it wraps ([finding](../../docs/f))" in page


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    ended = CliRunner().invoke(reports.main, ["jacks", "--into", str(tmp_path / "new")])
    assert ended.exit_code == 2
    assert "no backend is called 'jacks'" in ended.output
    assert not (tmp_path / "new").exists()


def test_what_cannot_run_here_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "reason_not_to_run", lambda path: "it is not installed")
    (tmp_path / "jax.json").write_text("as it was")
    ended = CliRunner().invoke(reports.main, ["jax", "--into", str(tmp_path)])
    assert "jax: left as it is: it is not installed" in ended.output
    assert (tmp_path / "jax.json").read_text() == "as it was"


def test_a_report_of_a_gpu_is_replaced_only_by_name_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(reports, "_judge", lambda name, budget: RAW | {"target": name})
    monkeypatch.setattr(reports, "catalogue", lambda: {"jax": catalogue()["jax"]})
    monkeypatch.setattr(reports, "reason_not_to_run", lambda path: None)
    ours = json.dumps(RAW | {"device": "cuda"})
    (tmp_path / "jax.json").write_text(ours)
    ended = CliRunner().invoke(reports.main, ["--into", str(tmp_path)])
    assert "jax: left as it is: its report is of a GPU" in ended.output
    assert (tmp_path / "jax.json").read_text() == ours
    CliRunner().invoke(reports.main, ["jax", "--into", str(tmp_path)])
    assert json.loads((tmp_path / "jax.json").read_text())["device"] == "cpu"


def test_the_command_writes_a_report_and_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_judge", lambda name, budget: RAW | {"target": name})
    monkeypatch.setattr(reports, "reason_not_to_run", lambda path: None)
    ended = CliRunner().invoke(reports.main, ["jax", "eager", "--into", str(tmp_path)])
    assert ended.exit_code == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("README.md", "eager.json", "jax.json"),
    ]
    assert (tmp_path / "README.md").read_text() == reports.page(reports.read(tmp_path))


def test_the_committed_page_is_that_of_the_committed_reports() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert page == reports.page(reports.read(FOLDER))


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_a_committed_report_breaks_what_is_declared_and_nothing_else(file: Path) -> None:
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["target"] == file.stem
    assert file.stem in catalogue()
    assert {status for status in ("fail", "crash", "timeout") if report.get(status)} == set()
    stem = file.stem.replace("-", "_")
    own, shared = (ROOT / "backends" / f"{s}.toml" for s in (stem, stem.removesuffix("_3")))
    declared = own if own.exists() else shared
    rows = {row.clause for row in load(declared)} if declared.exists() else set()
    assert set(report.get("deviation", ())) <= rows


def test_a_report_that_was_made_elsewhere_is_taken_in(tmp_path: Path) -> None:
    file = tmp_path / "there.json"
    file.write_text(json.dumps(RAW))
    ended = CliRunner().invoke(
        reports.main, ["--made", str(file), "--into", str(tmp_path / "reports")]
    )
    assert ended.exit_code == 1
    assert "jax: nonconformant, 1234 cases, 62 s" in ended.output
    assert "| [jax](jax.json) |" in (tmp_path / "reports" / "README.md").read_text()


def test_a_report_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "there.json"
    file.write_text(json.dumps(RAW | {"target": "mine.py:f"}))
    ended = CliRunner().invoke(reports.main, ["--made", str(file), "--into", str(tmp_path)])
    assert ended.exit_code == 2
    assert "no backend is called 'mine.py:f'" in ended.output
