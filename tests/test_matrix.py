"""Reports are read, set side by side and rendered as what they say, or refused in one line."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cli_support
import pytest
from cli_support import MUST, one_line
from matrix_support import EVERY, HOSTILE, SCRIPT, document
from rich.console import Console

from embconform.conformance.render.matrix import page, support, terminal
from embconform.conformance.render.matrix.model import SYMBOLS, Matrix, names
from embconform.conformance.render.matrix.reading import ReadingError, column
from embconform.conformance.report import Status
from embconform.reference.clause import Profile, registry, select

cli, folder, runs = cli_support.cli, cli_support.folder, cli_support.runs
ROOT = Path(__file__).parents[1]
REPORTS = sorted((ROOT / "docs/reports").glob("*.json"))
HOW_TO = (ROOT / "docs/how-to/read-the-matrix.md").read_text(encoding="utf-8")
Cli = Callable[..., tuple[int, str, str]]


def matrix(*documents: dict[str, Any]) -> Matrix:
    return Matrix(tuple(column(each) for each in documents))


def write(path: Path, *documents: Any) -> Path:
    path.write_text(json.dumps(documents[0] if len(documents) == 1 else list(documents)))
    return path


class Cells(HTMLParser):
    """Reads a page's table as a browser would: status by clause and column."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.outside: list[str] = []
        self._row = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "tr":
            self._row = given.get("data-clause") or ""
        if tag == "td" and self._row:
            self.found.setdefault(self._row, []).append(given["class"] or "")
        self.outside += [
            value or "" for key, value in attrs
            if key in ("src", "href", "action", "data") and not (value or "").startswith("#")
        ]  # fmt: skip


def data_of(text: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


# what is read


def test_a_sign_for_every_status_and_no_two_alike() -> None:
    assert set(SYMBOLS) == set(Status)
    assert len(set(SYMBOLS.values())) == len(Status)


def test_every_status_keeps_its_place() -> None:
    text = page.render(matrix(document("a", statuses=EVERY), document("b", Profile.TEXTBOOK)))
    found = Cells(text).found
    for clause, status in EVERY.items():
        assert found[clause][0] == status
    textbook = {name for name, clause in registry().items() if Profile.TEXTBOOK in clause.profiles}
    absent = {clause for clause, cells in found.items() if cells[1] == "absent"}
    assert absent
    assert absent.isdisjoint(textbook)


def test_the_page_tells_a_failure_whole() -> None:
    data = data_of(page.render(matrix(document(statuses=EVERY))))
    cell = data["columns"][0]["cells"]["lookup.rows"]
    told = {key: cell[key] for key in ("status", "got", "exact", "bound", "ulp", "call", "failed")}
    assert told == {
        "status": "fail", "got": "2.0", "exact": "0.0", "bound": "1e-07", "ulp": 8388608.5,
        "call": "embedding(ids, weight)", "failed": 2,
    }  # fmt: skip
    known = registry()["lookup.rows"]
    (clause,) = [each for each in data["clauses"] if each["id"] == "lookup.rows"]
    assert (clause["sentence"], clause["level"]) == (known.sentence, known.level.value)


def test_scripts_are_in_the_page() -> None:
    text = page.render(matrix(document(statuses=EVERY)))
    (packed,) = re.findall(r'id="scripts">(.*?)</script>', text)
    scripts = json.loads(zlib.decompress(base64.b64decode(packed)))
    number = data_of(text)["columns"][0]["cells"]["lookup.rows"]["script"]
    assert scripts[number] == SCRIPT


def test_the_page_needs_nothing_from_outside_and_obeys_no_target() -> None:
    text = page.render(matrix(document(HOSTILE, statuses=EVERY)))
    assert Cells(text).outside == []
    assert "<img" not in text
    assert text.count("<script") == 3
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)


def test_one_report_makes_one_page() -> None:
    one = document(statuses=EVERY)
    assert page.render(matrix(one)) == page.render(matrix(one))


def test_twenty_six_reports_fit_and_far_more_are_refused() -> None:
    many = [document(f"backend-{k}", statuses=EVERY) for k in range(26)]
    assert len(page.render(matrix(*many)).encode()) < page.LARGEST
    with pytest.raises(page.TooLargeError, match=r"78 reports make a page of \d\.\d MB"):
        page.render(matrix(*many * 3))


def test_what_does_not_fit_is_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = matrix(document(statuses=EVERY))
    whole = page.render(found)
    monkeypatch.setattr(page, "LARGEST", len(whole.encode()) - 1)
    cell = data_of(page.render(found))["columns"][0]["cells"]["lookup.rows"]
    assert "script" not in cell
    assert cell["call"]


def test_names_tell_columns_apart() -> None:
    three = [document("a"), document("a", Profile.TEXTBOOK), document("b"), document("b")]
    assert names([column(each) for each in three]) == ("a torch", "a textbook", "b", "b (2)")


def test_a_clause_that_the_registry_lacks_is_shown() -> None:
    old = document()
    old["clauses"][0] |= {"id": "lookup.gone", "sentence": "It was so.", "level": "MAY"}
    (row,) = [row for row in matrix(old).groups["lookup"] if row.id == "lookup.gone"]
    assert (row.sentence, row.level) == ("It was so.", "MAY")


# support


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (set(), ["everything"]),
        ({"gradient", "sparse", "deterministic", "double_backward"}, ["forward only"]),
        ({"half"}, ["float32 and float64"]),
        ({"half", "float64"}, ["float32 only"]),
        ({"float64"}, ["no float64"]),
        ({"max_norm", "norm_type"}, ["no max_norm"]),
        ({"norm_type", "int32"}, ["no norm_type", "int64 indices only"]),
        ({"module"}, ["no module form"]),
    ],
)
def test_support_in_words(lacking: set[str], said: list[str]) -> None:
    assert support.words(frozenset(lacking)) == said


def test_every_capability_has_words() -> None:
    for name in support.capabilities():
        assert support.words(frozenset({name})) != ["everything"]
        assert support.words(frozenset({name}))


def test_what_a_report_declares_goes_before_what_can_be_inferred() -> None:
    assert column(document(supports=["gradient"])).missing == support.capabilities() - {"gradient"}


@pytest.mark.parametrize("lacking", [{"max_norm", "norm_type"}, {"gradient"}, {"half"}, {"module"}])
def test_support_is_inferred_from_statuses(lacking: set[str]) -> None:
    statuses = {
        name: Status.UNSUPPORTED if clause.needs & lacking else Status.PASS
        for name, clause in registry().items()
    }
    found = support.inferred(statuses)
    assert found <= lacking
    assert found - {"norm_type"} == lacking - {"norm_type"}


@pytest.mark.parametrize("file", REPORTS, ids=lambda file: file.stem)
def test_committed_reports_are_read_as_they_are(file: Path) -> None:
    plain = json.loads(file.read_text(encoding="utf-8"))
    read = column(plain)
    for status in Status:
        here = [name for name, cell in read.cells.items() if cell.status is status]
        assert here == list(plain.get(status.value, []))


def test_support_that_committed_reports_tell_of() -> None:
    found = {
        file.stem: support.words(column(json.loads(file.read_text())).missing) for file in REPORTS
    }
    assert found["eager"] == ["everything"]
    assert found["aot-eager"] == ["no double backward"]  # it declares that, and refuses it
    assert found["torchao"][0] == "forward only"
    assert found["numba"][0] == "float32 and float64"


# what is refused


def without(key: str) -> dict[str, Any]:
    made = document()
    del made[key]
    return made


def spoilt(**entry: Any) -> dict[str, Any]:
    made = document()
    made["clauses"][3] |= entry
    return made


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([], "it is no report"),
        ("text", "it is no report"),
        ({"rows": {}}, "it is no report"),
        (without("clauses"), "its key 'clauses' is missing"),
        (without("profile"), "its key 'profile' is missing"),
        (document(schema=2), "it has schema 2"),
        (document(verdict="fine"), "its verdict is 'fine'"),
        (document(clauses=[]), "it holds no clause"),
        (document(clauses=[1]), "is no object"),
        (document(seed="0"), "its key 'seed' is no whole number"),
        (document(supports="all"), "'supports' is no list of names"),
        (document(part={"shard": 2, "of": 3}), "it is shard 2/3"),
        (document(environment=None), "its key 'environment' is missing"),
        (document(target=" "), "it names no target"),
        (spoilt(status="good"), "it has a status 'good'"),
        (spoilt(id=7), "a clause in it has no id"),
        (spoilt(id="lookup.shape"), "it holds lookup.shape twice"),
        (spoilt(failure=3), "its key 'failure' is no object"),
        ({"target": "a", "verdict": "conformant", "pass": 1}, "is no list of clause ids"),
    ],
)
def test_what_is_no_report_is_refused_in_words(bad: Any, said: str) -> None:
    with pytest.raises(ReadingError, match=re.escape(said)):
        column(bad)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "can't read bad.json as JSON"),
        ("[]", "bad.json holds no report"),
        ('{"target": 1}', "can't use bad.json: it is no report"),
        (None, "can't read bad.json as JSON: No such file"),
    ],
)
def test_bad_files_give_one_line(folder: Path, cli: Cli, text: str | None, said: str) -> None:
    if text is not None:
        (folder / "bad.json").write_text(text)
    one_line(cli("matrix", "bad.json", "--html", "m.html"), said)
    assert not (folder / "m.html").exists()


def test_bad_calls_give_one_line(folder: Path, cli: Cli) -> None:
    write(folder / "a.json", document())
    one_line(cli("matrix"), "Missing argument")
    one_line(cli("matrix", "a.json", "--html", "no/m.html"), "can't write --html no/m.html")
    one_line(cli("matrix", "a.json", "--html", "-"), "only --json may go to stdout")
    one_line(cli("matrix", "a.json", "--json", "b.json"), "only files were given")
    one_line(cli("matrix", "nothing.such:x"), "nothing")
    one_line(cli("matrix", "good.py:embed", "--html", "x", "--json", "x"), "are the same file")
    assert not (folder / "x").exists()


# the command


def test_saved_reports_become_a_page(folder: Path, cli: Cli) -> None:
    write(folder / "a.json", document("a"), document("c"))
    write(folder / "b.json", document("b"))
    code, out, err = cli("matrix", "a.json", "b.json", "--html", "m.html")
    assert (code, err) == (0, "")
    assert "3 of 3 backends conformant; see m.html" in out
    text = (folder / "m.html").read_text(encoding="utf-8")
    assert [each["name"] for each in data_of(text)["columns"]] == ["a", "c", "b"]


def test_one_that_is_not_conformant_decides_the_exit_code(folder: Path, cli: Cli) -> None:
    write(folder / "a.json", document("a"), document("b", statuses={MUST: "fail"}))
    code, out, _ = cli("matrix", "a.json")
    assert code == 1
    assert "1 of 2 backends conformant" in out


def test_targets_are_judged_and_stand_where_they_were_named(
    folder: Path, runs: Any, cli: Cli
) -> None:
    write(folder / "old.json", document("old"))
    runs.broken = {MUST: Status.FAIL}
    options = ("--html", "m.html", "--json", "new.json", "--budget", "quick")
    code, _, err = cli("matrix", "good.py:embed", "old.json", "good.py:embed", *options)
    assert (code, err) == (1, "")
    assert len(runs.seen) == 1
    assert runs.seen[0][1].budget == "quick"
    columns = data_of((folder / "m.html").read_text(encoding="utf-8"))["columns"]
    assert [each["name"] for each in columns] == ["good.py:embed", "old"]
    assert columns[0]["cells"][MUST]["status"] == "fail"
    again = cli("matrix", "new.json", "old.json", "--html", "again.html")
    assert again[0] == 1
    assert (folder / "again.html").read_bytes() == (folder / "m.html").read_bytes()


def test_an_interrupted_run_writes_nothing(folder: Path, runs: Any, cli: Cli) -> None:
    def interrupt() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGINT)

    runs.act = interrupt
    code, _, err = cli("matrix", "good.py:embed", "--html", "m.html")
    assert code == 130
    assert "nothing was written" in err
    assert not (folder / "m.html").exists()


def test_a_real_target_is_judged(folder: Path, cli: Cli) -> None:
    code, out, err = cli(
        "matrix", "eager", "--budget", "quick", "--select", "lookup.shape,errors.negative"
    )
    assert (code, err) == (0, "")
    assert re.search(r"^lookup +✓1 *$", out, re.MULTILINE)
    assert "eager supports everything" in out


# the terminal


def shown(found: Matrix, width: int) -> str:
    stream = io.StringIO()
    terminal.render(found, Console(file=stream, width=width))
    return stream.getvalue()


def test_the_table_counts_every_status() -> None:
    text = shown(matrix(document("a", statuses=EVERY), document("b", Profile.TEXTBOOK)), 100)
    lookup = len(select(Profile.TORCH, "lookup.*", "cpu"))
    row = next(line for line in text.splitlines() if line.startswith("lookup"))
    assert row.split()[1:5] == [f"✓{lookup - 3}", "✗1", "!1", "T1"]
    assert re.search(r"^verdict +nonconformant +conformant *$", text, re.MULTILINE)
    assert re.search(r"^sparse .* · *$", text, re.MULTILINE)


def test_more_backends_than_a_terminal_has_room_for() -> None:
    text = shown(matrix(*(document(f"backend-{k}") for k in range(12))), 80)
    assert max(map(len, text.splitlines()[:-5])) <= 80
    for number in range(12):
        assert f"backend-{number}" in text
    assert text.count("verdict") == 3


# the how-to


def test_the_how_to_makes_the_page_of_this_repository(folder: Path, cli: Cli) -> None:
    (command,) = re.findall(r"^(embconform matrix docs/reports/.*)$", HOW_TO, re.MULTILINE)
    _, verb, pattern, *options = command.split()
    (folder / "docs").mkdir()
    files = sorted(ROOT.glob(pattern))
    code, _, err = cli(verb, *files, *options)
    assert (code, err) == (0, "")
    size = (folder / "docs/matrix.html").stat().st_size
    assert size < page.LARGEST


def test_the_how_to_has_every_sign() -> None:
    for status, symbol in SYMBOLS.items():
        assert f"| {symbol} | {status.value} |" in HOW_TO
