import io
import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from embconform.backends.deviations import Deviation
from embconform.conformance.render import json as as_json
from embconform.conformance.render import junit, markdown, repro, terminal
from embconform.conformance.render.files import why_no_folder, why_not_writable, write_whole
from embconform.conformance.report import ClauseResult, Failure, Report, Status
from embconform.reference.clause import Level, Profile, registry

CALL = """import torch
weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
out = embedding(torch.tensor([1, 1, 0]), weight, padding_idx=1)
out.sum().backward()
print(weight.grad[1])  # tensor([2., 2.]), must be zeros"""
FAILURE = Failure(
    message="the gradient of row 1 is not 0",
    got="2.0",
    exact="0.0",
    bound="0.0",
    ulp=8388608.0,
    call=CALL,
    script="import torch\nprint('got')\nraise SystemExit(1)",
    indices=3,
    rows=2,
)
ROW = Deviation("errors.x", "a 0-d index raises", "docs/findings.md#1", {"torch": "<2.14"})
LONG = "x" * 300


def _ids(level: Level, count: int) -> list:
    found = [clause for clause in registry().values() if clause.level is level]
    assert len(found) >= count
    return found[:count]


def make_report(**changes) -> Report:
    must = _ids(Level.MUST, 30)
    should = _ids(Level.SHOULD, 2)
    clauses = (
        ClauseResult(must[0], Status.PASS, exercised=120, seconds=0.12345678),
        ClauseResult(must[1], Status.FAIL, 80, 3, 0.1, FAILURE, detail=FAILURE.message),
        ClauseResult(must[2], Status.CRASH, 5, 1, detail="the target died: signal 11"),
        ClauseResult(must[3], Status.DEVIATION, 9, 2, 0.1, FAILURE, ROW),
        ClauseResult(must[4], Status.UNEXPECTED_PASS, 9, deviation=ROW),
        ClauseResult(must[5], Status.UNSUPPORTED, detail="eager has no sparse"),
        ClauseResult(must[6], Status.UNSUPPORTED, detail="eager has no sparse"),
        ClauseResult(must[7], Status.UNTESTED, detail="no case applied"),
        ClauseResult(should[0], Status.FAIL, 10, 1, 0.1, replace(FAILURE, ulp=math.inf)),
        ClauseResult(should[1], Status.UNTESTED, detail="no case applied"),
    )
    report = Report(
        target="mine.py:embed",
        profile=Profile.TORCH,
        device="cpu",
        seed=7,
        budget="default",
        clauses=clauses,
        cases=5213,
        seconds=38.24,
        environment={"torch": "2.13.0+cpu", "python": "3.11.7"},
        notes=("the target printed 12 bytes",),
        replay="embconform validate mine.py:embed --profile torch --seed 7",
    )
    return replace(report, **changes)


def green_report() -> Report:
    return make_report(
        clauses=tuple(ClauseResult(clause, Status.PASS, 9) for clause in _ids(Level.MUST, 9)),
        notes=(),
    )


def many_failures(count: int = 25) -> Report:
    return make_report(
        clauses=tuple(
            ClauseResult(clause, Status.FAIL, 9, 9, 0.0, FAILURE)
            for clause in _ids(Level.MUST, count)
        )
    )


def hostile_report() -> Report:
    nasty = "\x1b[31m]]> </failure> \x00 \ud800 | `` ``` <details> \u202e\r\nnext"
    failure = Failure(nasty, got=nasty, exact=nasty, call=f"{nasty}\n```\nx", script=nasty)
    (clause,) = _ids(Level.MUST, 1)
    result = ClauseResult(clause, Status.FAIL, 1, 1, failure=failure, detail=nasty)
    return make_report(target=nasty, clauses=(result,), notes=(nasty,), replay=nasty)


def plain(report: Report) -> str:
    stream = io.StringIO()
    terminal.render(report, Console(file=stream))
    return stream.getvalue()


def coloured(report: Report, width: int) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, width=width, color_system="standard", no_color=False
    )
    terminal.render(report, console)
    return stream.getvalue()


def test_the_verdict_comes_first():
    lines = plain(make_report()).splitlines()
    assert lines[0] == (
        "mine.py:embed  nonconformant  torch profile, 2 clauses broken, 1 untested, "
        "1 known deviation, 1 unexpected pass, 1 warning"
    )
    assert lines[1] == (
        "  1 pass  2 fail  1 crash  1 deviation  1 unexpected-pass  2 untested  2 unsupported"
    )
    assert lines[2] == "  5,213 cases in 38.2 s, seed 7, default budget, cpu"
    assert plain(green_report()).startswith("mine.py:embed  conformant  torch profile\n")


def test_a_green_report_is_short():
    assert len(plain(green_report()).splitlines()) == 5


def test_a_failure_says_all_there_is():
    report = make_report()
    clause = report.clauses[1].clause
    text = plain(report)
    said = [
        f"  {clause.id}  MUST  3 of 80 cases",
        f"    {clause.sentence}",
        "    the gradient of row 1 is not 0",
        "    got    2.0",
        "    exact  0.0",
        "    bound  0.0",
        "    error  8.389e+06 ulp",
        "",
        *(f"      {line}" for line in CALL.splitlines()),
    ]
    assert "\n".join(said) in text
    assert "the target died: signal 11" in text
    assert "  MUST  crash  1 of 5 cases" in text


def test_plain_text_has_no_escapes_and_no_wrapping():
    report = make_report(notes=(LONG,))
    text = plain(report)
    assert "\x1b" not in text
    assert f"  {LONG}\n" in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_wraps_prose_but_not_code(width):
    text = re.sub(r"\x1b\[[0-9;]*m", "", coloured(make_report(), width))
    for line in CALL.splitlines():
        assert f"      {line}\n" in text
    prose = [line for line in text.splitlines() if line.startswith("    ") and line[4:5] != " "]
    assert max(map(len, prose)) <= max(width, 80)
    assert "\x1b[" in coloured(make_report(), width)


def test_what_does_not_count_stands_apart():
    report = make_report()
    text = plain(report)
    broken, _, rest = text.partition("\nWarnings (SHOULD")
    warned = report.clauses[8].clause.id
    assert warned not in broken
    assert warned in rest
    assert "inf ulp" in rest
    strict = plain(replace(report, strict=True))
    assert "Warnings" not in strict
    assert "3 clauses broken" in strict
    assert ", cpu, strict" in strict


def test_sections_after_the_failures():
    text = plain(make_report())
    ids = [result.clause.id for result in make_report().clauses]
    assert f"  {ids[3]}: a 0-d index raises (docs/findings.md#1)\n" in text
    assert f"Unsupported\n  eager has no sparse: {ids[5]}, {ids[6]}\n" in text
    assert f"they count)\n  no case applied: {ids[7]}\n" in text
    assert f"they don't count)\n  no case applied: {ids[9]}\n" in text
    assert "Unexpected passes" in text
    assert text.endswith("\nreplay  embconform validate mine.py:embed --profile torch --seed 7\n")


def test_long_lists_are_cut():
    report = many_failures()
    text = plain(report)
    assert text.count("must be zeros") == terminal.IN_FULL
    assert text.count("the gradient of row 1 is not 0") == terminal.LIMIT
    assert re.search(r"and 15 more \(\d+ [\w-]+, .*\); --json FILE and --repro-dir DIR", text)
    assert report.clauses[9].clause.id in text
    assert report.clauses[10].clause.id not in text


def test_a_summary_of_several():
    stream = io.StringIO()
    terminal.render_summary([make_report(), green_report()], Console(file=stream))
    lines = stream.getvalue().splitlines()
    assert lines[1] == "Summary"
    assert lines[2].startswith("  mine.py:embed  nonconformant  torch profile, 2 clauses broken")
    assert lines[3].startswith("  mine.py:embed  conformant     torch profile")


def test_json_has_the_keys_of_schema_1():
    document = json.loads(as_json.render([make_report()]))
    assert document.keys() >= {
        "schema", "embconform", "target", "profile", "device", "seed", "verdict",
        "environment", "clauses",
    }  # fmt: skip
    assert document["schema"] == 1
    assert document["verdict"] == "nonconformant"
    assert document["profile"] == "torch"
    failed = document["clauses"][1]
    assert failed.keys() >= {
        "id", "level", "profile", "status", "exercised", "seconds", "detail", "repro",
    }  # fmt: skip
    assert (failed["status"], failed["exercised"], failed["failed"]) == ("fail", 80, 3)
    assert failed["repro"] == FAILURE.script
    assert failed["failure"]["ulp"] == 8388608.0
    assert document["clauses"][8]["failure"]["ulp"] is None
    assert document["clauses"][0]["repro"] is None
    assert document["clauses"][3]["deviation"]["link"] == ROW.link
    assert [c["counts_against"] for c in document["clauses"]].count(True) == 3


def test_json_of_several_is_a_list():
    documents = json.loads(as_json.render([make_report(), green_report()]))
    assert [document["verdict"] for document in documents] == ["nonconformant", "conformant"]


def _suite(report: Report) -> ET.Element:
    return ET.fromstring(junit.render([report])).find("testsuite")


def test_junit_is_red_where_the_verdict_is():
    suite = _suite(make_report())
    facts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert facts == {"tests": "10", "failures": "1", "errors": "2", "skipped": "5"}
    cases = suite.findall("testcase")
    failure = cases[1].find("failure")
    assert failure.get("message") == "the gradient of row 1 is not 0"
    assert CALL in failure.text
    assert cases[2].find("error").get("message") == "crash: the target died: signal 11"
    assert "known deviation: a 0-d index raises" in cases[3].find("skipped").get("message")
    assert cases[5].find("skipped").get("message") == "unsupported: eager has no sparse"
    assert cases[7].find("error").get("message") == "untested: no case applied"
    assert cases[8].find("skipped").get("message").startswith("SHOULD, fail: ")
    green = _suite(green_report())
    assert (green.get("failures"), green.get("errors"), green.get("skipped")) == ("0", "0", "0")


def test_junit_under_strict():
    suite = _suite(make_report(strict=True))
    assert (suite.get("failures"), suite.get("errors")) == ("3", "3")


def test_hostile_words_stay_words():
    report = hostile_report()
    for text in (plain(report), markdown.render([report]), junit.render([report])):
        assert "\x1b" not in text
        assert "\x00" not in text
        assert "\u202e" not in text
        text.encode()
    assert json.loads(as_json.render([report]))["target"] == report.target
    case = _suite(report).find("testcase")
    assert "]]> </failure>" in case.find("failure").text


def test_scripts_are_written_and_run(tmp_path):
    report = make_report()
    folder = tmp_path / "a" / "b"
    written = repro.write([report], folder)
    assert [path.name for path in written] == [f"{report.clauses[k].clause.id}.py" for k in (1, 8)]
    assert written[0].read_text() == FAILURE.script + "\n"


def test_scripts_of_several_targets_do_not_meet(tmp_path):
    reports = [make_report(target="../a:b"), make_report(target="../a:b")]
    written = repro.write(reports, tmp_path)
    assert len(set(written)) == len(written) == 4
    assert all(tmp_path in path.resolve().parents for path in written)


def test_no_failures_no_folder(tmp_path):
    assert repro.write([green_report()], tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")
    path.chmod(0o640)
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_followed(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    path.write_text("old")

    def full(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert why_not_writable(tmp_path / "file") is None
    assert why_not_writable(tmp_path / "new") is None
    assert why_not_writable(tmp_path) == "it is a folder"
    assert "there is no folder" in why_not_writable(tmp_path / "no" / "x")
    assert "is not a folder" in why_not_writable(tmp_path / "file" / "x")
    assert why_not_writable(tmp_path / ("n" * 300)) is not None
    assert why_not_writable(tmp_path / "a\0b") is not None
    assert why_no_folder(tmp_path / "x" / "y" / "z") is None
    assert "is not a folder" in why_no_folder(tmp_path / "file")
    assert "is not a folder" in why_no_folder(tmp_path / "file" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
