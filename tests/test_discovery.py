"""Discovery: a sample of it, and the file that it goes on with."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from click.testing import CliRunner
from sampling import bug_name

from embconform.mutants.registry import by_name
from embconform.proof.discovery import lines, main, page_of, plan
from embconform.proof.hunt import Hunt, hunt
from embconform.proof.log import Log, line_of
from embconform.proof.right import right
from embconform.proof.tasks import HuntTask

SAMPLE = list(by_name().values())[::150]
RUN = {"kind": "run", "commit": "abc", "command": "python -m x run"} | dict.fromkeys(
    ("torch", "numpy", "hypothesis", "python", "system"), "1"
)


@pytest.mark.parametrize("bug", SAMPLE, ids=bug_name)
def test_a_sample_is_found_with_another_seed(bug: object) -> None:
    assert hunt(bug, seed=101, budgets=("default",), until="any").caught  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("bug", by_name().values(), ids=bug_name)
def test_every_bug_is_found_with_20_seeds(bug: object) -> None:
    missed = [
        seed
        for seed in range(20)
        if not hunt(bug, seed=seed, budgets=("default",), until="any").caught  # type: ignore[arg-type]
    ]
    assert missed == []


class TestCompressed:
    def test_is_read_and_rendered(self, tmp_path: Path) -> None:
        out, page = tmp_path / "found.jsonl.xz", tmp_path / "page.md"
        with lzma.open(out, "wt", encoding="utf-8") as stream:
            stream.write(json.dumps(RUN) + "\n" + line_of(_hunted(0)))
        done = CliRunner().invoke(main, ["render", "--out", str(out), str(page)])
        assert done.exit_code == 0
        assert "- 1 planted bugs, 1 runs" in page.read_text()

    def test_is_not_appended_to(self, tmp_path: Path) -> None:
        out = tmp_path / "found.jsonl.xz"
        done = CliRunner().invoke(main, ["run", "--out", str(out), "--targets", "LastWriterWins"])
        assert done.exit_code == 2
        assert "unpack it with xz -dk" in done.output
        assert not out.exists()


def _hunted(seed: int) -> Hunt:
    name, profile = "LastWriterWins", "torch"
    clause = by_name()[name, profile].clause
    return Hunt(name, profile, clause, "", seed, "default", (), 16, 0.1)


class TestPlan:
    def test_is_every_bug_with_20_seeds_and_every_right_embedding_with_50_and_5(self) -> None:
        wished = plan(20, "*", {"quick": 50, "default": 5})
        bugs = [task for task in wished if isinstance(task, HuntTask)]
        assert len(bugs) == 20 * len(by_name())
        assert {task.budgets for task in bugs} == {("default",)}
        assert {task.until for task in bugs} == {"any"}
        assert len(wished) - len(bugs) == 55 * len(right())
        assert len(set(wished)) == len(wished)

    def test_has_every_target_before_the_next_seed(self) -> None:
        seeds = [task.seed for task in plan(3, "*", {"quick": 2, "default": 1})]
        assert seeds == sorted(seeds)

    def test_takes_names_and_clauses(self) -> None:
        wished = plan(1, "by_gather, LastWriterWins, padding.zero-*", {"quick": 1, "default": 0})
        assert {"by_gather", "LastWriterWins", "ZeroMeansNoPadding"} <= {t.name for t in wished}
        assert len(wished) < 10


class TestRun:
    def call(self, *arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
        return done.exit_code, done.output

    def test_goes_on_where_it_was_stopped(self, tmp_path: Path) -> None:
        out = tmp_path / "found.jsonl"
        wanted = ("--targets", "NarrowInit,ReprBounds", "--workers", 1, "--out", out)
        assert self.call("run", "--seeds", 1, *wanted)[0] == 0
        first = Log.read(out)
        assert {seed for _, _, seed in first.hunts} == {0}
        assert self.call("run", "--seeds", 2, *wanted)[0] == 0
        both = Log.read(out)
        assert {seed for _, _, seed in both.hunts} == {0, 1}
        assert len(both.hunts) == 2 * len(first.hunts) == 4
        assert len(both.runs) == 2
        written = out.read_text()
        assert self.call("run", "--seeds", 2, *wanted)[0] == 0
        assert out.read_text() == written

    def test_a_pattern_without_a_match_is_told(self, tmp_path: Path) -> None:
        code, said = self.call("run", "--targets", "nothing", "--out", tmp_path / "x")
        assert code == 2
        assert "matches no planted bug" in said
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize("torn", ['{"kind": "bug", "na', "[]", '{"kind": "other"}', "{}"])
    def test_half_a_line_is_told(self, torn: str, tmp_path: Path) -> None:
        out = tmp_path / "found.jsonl"
        out.write_text(json.dumps(RUN) + "\n" + torn)
        code, said = self.call("run", "--out", out)
        assert code == 1
        assert "line 2" in said
        assert out.read_text().endswith(torn)


class TestPage:
    def test_counts_what_was_caught(self, tmp_path: Path) -> None:
        bug = by_name()["LastWriterWins", "torch"]
        caught = hunt(bug, until="any")
        missed = Hunt(bug.name, bug.profile, bug.clause, bug.story, 1, "default", (), 50, 3.0)
        out = tmp_path / "found.jsonl"
        out.write_text(json.dumps(RUN) + "\n" + line_of(caught) + line_of(missed))
        log = Log.read(out)
        (line,) = lines(log)
        assert (line.caught, line.seeds) == (1, 2)
        page = "\n".join(page_of(log))
        assert "1 planted bugs, 2 runs: 1 caught" in page
        assert f"| LastWriterWins | torch | {bug.clause} | 1/2 |" in page
