"""The comment on a pull request: what it says first, what changed, and that words stay words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cli_support
import pytest
from cli_support import MUST as MUST_CLAUSE
from cli_support import one_line
from markdown_it import MarkdownIt
from matrix_support import document

from embconform.backends.deviations import Deviation
from embconform.conformance.render import markdown, markup
from embconform.conformance.render.changes import Comparison, Kind
from embconform.conformance.render.json import as_dict
from embconform.conformance.render.matrix import markdown as matrix_markdown
from embconform.conformance.render.matrix.model import Column, Matrix
from embconform.conformance.render.matrix.reading import column
from embconform.conformance.report import ClauseResult, Failure, Report, Status
from embconform.reference.clause import Level, Profile, registry

cli, folder, runs = cli_support.cli, cli_support.folder, cli_support.runs
Cli = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[1]
MUST = [clause for clause in registry().values() if clause.level is Level.MUST]
CALL = "out = embedding(ids, weight)\nprint(out)  # must be 0"
FAILURE = Failure("row 1 is 2.0, must be 0.0", "2.0", "0.0", "0", 8.0, call=CALL)
ROW = Deviation("x.y", "stops at 256", "docs/findings.md#half")
HOSTILE = (
    "@everyone see #1, GH-2, owner/repo#3, https://evil.example/x www.evil.example a@evil.example",
    "<img src=x onerror=alert(1)><!-- embconform --><details open>",
    "a | b | c\\| `x` ``y`` ```z``` `",
    "line\n\n# heading\n- item\n/close\n> quote\n```sh\nrm -rf /\n```\n",
    "**bold** _it_ ~~gone~~ [text](javascript:alert(1)) ![i](http://evil.example/i.png) $x$ :+1:",
    "\x1b[31m \x00 \ud800 \u202e \u200b &lt;b&gt; </code></td></table>",
)


def report(*results: ClauseResult, **more: Any) -> Report:
    environment = {"torch": "2.13.0", "embconform": "0.1.0"}
    plain: dict[str, Any] = {
        "target": "mine:embed", "profile": Profile.TORCH, "device": "cpu", "seed": 7,
        "budget": "default", "clauses": results, "cases": 5213, "seconds": 38.2,
        "environment": environment, "replay": "embconform validate mine:embed --seed 7",
    }  # fmt: skip
    return Report(**plain | more)


def result(number: int, status: Status, **more: Any) -> ClauseResult:
    failure = FAILURE if status in (Status.FAIL, Status.DEVIATION) else None
    row = ROW if status in (Status.DEVIATION, Status.UNEXPECTED_PASS) else None
    plain: dict[str, Any] = {"failure": failure, "deviation": row, "detail": "a detail"}
    return ClauseResult(MUST[number], status, 9, **plain | more)


def before(*results: ClauseResult, **more: Any) -> list[Column]:
    return [column(as_dict(report(*results, **more)))]


def visible(text: str) -> str:
    """What a reader sees before unfolding anything."""
    outside = [part.split("</details>")[-1] for part in text.split("<details>")]
    return "\n".join(outside)


def test_the_verdict_and_what_is_broken_come_first() -> None:
    text = markdown.render([report(result(0, Status.PASS), result(1, Status.FAIL))])
    assert text.startswith("### ❌ embconform: `mine:embed` is nonconformant\n")
    assert f"| `{MUST[1].id}`<br>" in visible(text)
    assert FAILURE.message in visible(text)
    assert f"```python\n{CALL}\n```" in text
    assert CALL not in visible(text)
    assert "embconform validate mine:embed --seed 7" in text
    green = markdown.render([report(result(0, Status.PASS))])
    assert green.startswith("### ✅ embconform: `mine:embed` is conformant\n")
    assert len([line for line in visible(green).splitlines() if line.strip()]) == 2


def test_a_reviewer_reads_it_in_ten_seconds() -> None:
    many = [result(number, Status.FAIL) for number in range(40)]
    was = before(*(result(number, Status.PASS) for number in range(40)))
    for base in (None, was):
        text = markdown.render([report(*many)], base)
        assert len([line for line in visible(text).splitlines() if line.strip()]) <= 15
        assert all(each.clause.id in text for each in many)


def test_every_change_is_told_by_its_kind() -> None:
    other = replace(ROW, reason="stops at 2048")
    was = [
        result(0, Status.PASS), result(1, Status.CRASH), result(2, Status.PASS),
        result(3, Status.DEVIATION), result(4, Status.DEVIATION), result(5, Status.PASS),
        result(6, Status.PASS), result(7, Status.PASS), result(8, Status.FAIL),
        result(10, Status.FAIL), result(11, Status.PASS), result(12, Status.DEVIATION),
    ]  # fmt: skip
    now = [
        result(0, Status.FAIL), result(1, Status.FAIL), result(2, Status.DEVIATION),
        result(3, Status.DEVIATION, deviation=other), result(4, Status.UNEXPECTED_PASS),
        result(5, Status.UNTESTED), result(6, Status.UNSUPPORTED), result(8, Status.PASS),
        result(9, Status.PASS), result(10, Status.FAIL), result(11, Status.PASS),
        result(12, Status.DEVIATION),
    ]  # fmt: skip
    (base,) = before(*was)
    found = Comparison(base, column(as_dict(report(*now))))
    kinds = {change.clause: change.kind for change in found.changes}
    numbers = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert kinds == dict(zip((MUST[n].id for n in numbers), Kind, strict=True))
    assert [change.kind for change in found.changes] == list(Kind)
    text = markdown.render([report(*now)], [base])
    assert "**Since the base report**, which was nonconformant: 1 newly broken, 1 broken" in text
    seen = visible(text)
    for number in range(8):
        assert f"`{MUST[number].id}`<br>{list(Kind)[number]}" in seen
    assert "stops at 2048" in seen  # why a clause counts as known
    assert "<summary>Newly passing (1)</summary>" in text
    assert f"| `{MUST[8].id}`" not in seen


def test_nothing_changed() -> None:
    same = [result(0, Status.FAIL), result(1, Status.DEVIATION)]
    text = markdown.render([report(*same)], before(*same))
    assert "which was nonconformant: no clause changed" in text
    assert "not the same" not in text


def test_runs_that_differ_are_said_to() -> None:
    same = [result(0, Status.PASS)]
    was = before(*same, seed=3, budget="quick", environment={"torch": "2.12.0", "gpu": "X"})
    text = markdown.render([report(*same)], was)
    for told in (
        "`budget` `quick`, now `default`", "`seed` `3`, now `7`", "`torch` `2.12.0`, now `2.13.0`",
        "`embconform` `not said`, now `0.1.0`", "`gpu` `X`, now `not said`",
    ):  # fmt: skip
        assert told in visible(text)
    cut = before(*same, interrupted=True)
    assert "the run was interrupted" in visible(markdown.render([report(*same)], cut))


def test_the_report_that_is_most_alike_is_the_base() -> None:
    others = before(result(0, Status.PASS), target="other")
    quick = before(result(0, Status.FAIL), budget="quick")
    default = before(result(0, Status.PASS), seed=8)
    now = [report(result(0, Status.FAIL))]
    assert "1 newly broken" in markdown.render(now, [*others, *quick, *default])
    assert "it says nothing of `mine:embed`" in markdown.render(now, others)
    condensed = json.loads((ROOT / "docs/reports/eager.json").read_text())
    assert markdown.render([report(result(0, Status.FAIL), target="eager")], [column(condensed)])


@pytest.mark.parametrize("targets", [1, 3, 15])
@pytest.mark.parametrize("based", [False, True])
def test_it_fits_a_comment(targets: int, based: bool) -> None:
    long = replace(FAILURE, message="é|`" * 200, call="x = 1  # " + "y" * 9000)
    many = [result(number, Status.FAIL, failure=long) for number in range(12)]
    was = before(*(result(number, Status.PASS) for number in range(12)))
    text = markdown.render([report(*many)] * targets, was if based else None)
    assert len(text) < 65_536
    assert "left out" in text
    assert text.count("<details>") == text.count("</details>")


def _hostile_reports(words: str) -> tuple[Report, list[Column]]:
    failure = replace(FAILURE, message=words, got=words, exact=words, bound=words, call=words)
    row = Deviation("x", words, words)
    results = [
        result(0, Status.FAIL, failure=failure, detail=words),
        result(1, Status.DEVIATION, failure=failure, deviation=row),
        result(2, Status.UNSUPPORTED, detail=words),
        result(3, Status.CRASH, failure=None, detail=words),
    ]
    found = report(
        *results, target=words, notes=(words,), environment={words: words, "torch": words},
        replay=words, seed=1,
    )  # fmt: skip
    base = document(statuses={"lookup.rows": "fail"}, target=words, environment={"torch": words})
    base["clauses"][0]["id"] = words
    base["notes"] = [f"{words} too"]
    return found, [column(base)]


@pytest.mark.parametrize("words", HOSTILE)
def test_foreign_words_stay_words(words: str) -> None:
    """Whatever a target wrote is code in the parsed Markdown; all other structure is ours."""
    found, base = _hostile_reports(words)
    text = markdown.render([found, found], base)
    text.encode()
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        assert token.type not in ("hr", "blockquote_open", "ordered_list_open")
        if token.type == "html_block":
            assert _ours(token.content), token.content
        if token.type == "heading_open":
            assert token.tag == "h3"
        for child in token.children or []:
            assert child.type not in ("image", "link_open")
            if child.type == "html_inline":
                assert child.content == "<br>"
            if child.type == "text":
                assert not {"@", "#", "$"} & set(child.content), child.content
                assert "evil" not in child.content
                assert "onerror" not in child.content


def _ours(html: str) -> bool:
    """Whether a block of HTML is a fold with a title of ours, or its end."""
    inside = html.strip().removeprefix("<details><summary>").removesuffix("</summary>")
    return inside == "</details>" or not set(inside) & set("<>&@`|")


def test_the_check_of_foreign_words_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "code", lambda words: words)
    monkeypatch.setattr(markdown, "cell", lambda words: words)
    for words in HOSTILE[:2]:
        with pytest.raises(AssertionError):
            test_foreign_words_stay_words(words)


def test_a_row_of_a_table_has_its_columns() -> None:
    """A pipe ends a cell even inside code, unless it is escaped."""
    for words in HOSTILE:
        found, base = _hostile_reports(words)
        inside = False
        for line in markdown.render([found], base).splitlines():
            inside = line.startswith("| ") if not inside else line.startswith("|")
            if inside:
                bare = line.replace("\\|", "")
                assert bare.count("|") in (4, 5), line


@pytest.mark.parametrize(
    ("link", "clickable"),
    [
        ("https://example.org/a?b=c#d", True),
        ("http://example.org", True),
        ("https://github.com/pytorch/pytorch/issues/1", False),
        ("docs/findings.md#x", False),
        ("javascript:alert(1)", False),
        ("https://user@evil.example/", False),
        ("https://x.example/)>[y](z", False),
        ("https://x.example/ y", False),
    ],
)
def test_only_plain_web_addresses_are_links(link: str, clickable: bool) -> None:
    assert (markup.link(link) == f"[`{link}`](<{link}>)") is clickable
    assert clickable or markup.link(link) == f"`{link}`"


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("[]", (), "base.json holds no report"),
        ("{", (), "can't read base.json as JSON"),
        ('{"schema": 1}', (), "can't use base.json: it is no report of embconform validate --json"),
        (None, (), "can't read base.json as JSON: No such file or directory"),
        (json.dumps(document()), ("--shard", "1/2"), "give it to embconform merge"),
    ],
)
def test_a_baseline_that_cannot_be_used(
    folder: Path, cli: Cli, content: str | None, arguments: tuple[str, ...], said: str
) -> None:
    if content is not None:
        (folder / "base.json").write_text(content)
    call = ("validate", "good.py:embed", "--markdown", "a.md", "--baseline", "base.json")
    one_line(cli(*call, *arguments), said)
    assert not (folder / "a.md").exists()


def test_a_baseline_without_markdown(folder: Path, cli: Cli) -> None:
    (folder / "base.json").write_text(json.dumps(document()))
    one_line(cli("validate", "good.py:embed", "--baseline", "base.json"), "add --markdown")


def test_what_changed_from_one_run_to_the_next(folder: Path, cli: Cli, runs: Any) -> None:
    """The baseline is read before the run, whose own report may take its place."""
    call = ("validate", "good.py:embed", "--isolation", "none", "--json", "base.json")
    assert cli(*call)[0] == 0
    runs.broken = {MUST_CLAUSE: Status.FAIL}
    assert cli(*call, "--markdown", "a.md", "--baseline", "base.json")[0] == 1
    text = (folder / "a.md").read_text(encoding="utf-8")
    assert "which was conformant: 1 newly broken\n" in text
    assert f"`{MUST_CLAUSE}`<br>newly broken | pass | fail | `is wrong`" in text
    assert json.loads((folder / "base.json").read_text())["verdict"] == "nonconformant"


def test_a_matrix_fits_a_comment_too(folder: Path, cli: Cli) -> None:
    (folder / "a.json").write_text(json.dumps(document("a|b @me")))
    (folder / "b.json").write_text(json.dumps(document("worse", statuses={"lookup.rows": "fail"})))
    code, out, _ = cli("matrix", "a.json", "b.json", "--markdown", "m.md")
    assert (code, "see m.md" in out) == (1, True)
    text = (folder / "m.md").read_text(encoding="utf-8")
    assert text.startswith("### embconform matrix: ")
    assert "| `a\\|b @me` | ✅ conformant | ✓" in text
    assert "| `worse` | ❌ nonconformant | ✗1 ✓" in text
    assert "- `worse`: " in text
    one_line(cli("matrix", "a.json", "--markdown", "m.md", "--html", "m.md"), "the same file, m.md")
    one_line(cli("matrix", "a.json", "--markdown", "-"), "only --json may go to stdout")


def test_a_matrix_of_many_is_cut() -> None:
    columns = tuple(column(document(f"target {k} " + "x" * 900)) for k in range(3))
    text = matrix_markdown.render(Matrix(columns * 30))
    assert len(text) < 65_536
    assert "and 30 more" in text
