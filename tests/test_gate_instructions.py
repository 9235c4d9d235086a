"""Instruction counts beside the times: what they show, what they are blind to, and no verdict."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from performance_support import workload
from repository import PLAIN, TIDIED, Repository
from rich.console import Console

from embconform.performance.gate import instructions
from embconform.performance.gate.benchmarks import Benchmark, choose, default
from embconform.performance.gate.course import CHANGE, SILENT, Track
from embconform.performance.gate.decision import Call
from embconform.performance.gate.instructions import (
    Counter,
    Instructions,
    Witness,
    lacking,
    paired,
    smallest_calls,
)
from embconform.performance.gate.messages import Counted, Hello, Side
from embconform.performance.gate.render import as_json, junit, markdown, terminal
from embconform.performance.gate.report import GateReport, Row
from embconform.performance.gate.revisions import Tree
from embconform.performance.gate.workers import SideError
from embconform.performance.passes import PASSES

needs_valgrind = pytest.mark.skipif(bool(lacking()), reason=lacking() or "it is there")
TARGET = "my_pkg:my_embedding"
CALL = "embedding(input, weight, padding_idx, sparse=sparse)"
KEYWORDS = PLAIN.replace(CALL, "embedding(input, weight, **dict(sparse=sparse))")
DISPATCH = PLAIN.replace(CALL, CALL.replace("input", "input.detach()"))
RAISES = PLAIN.replace(f"return {CALL}", "raise RuntimeError('not here')")
DIES = PLAIN.replace(f"return {CALL}", "import os; os._exit(7)")
NO_IMPORT = "import no_such_module\n"
HOT, RANDOM = (
    Benchmark(workload(100_000, 64, 1_024, ids=ids), PASSES["forward"])
    for ids in ("equal", "uniform")
)
(TOKEN,) = choose("gpt2-token-zipf-float32", ("forward",))


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counted | SideError]:
    """Count all sources under one Valgrind."""
    sources = {
        "plain": PLAIN, "again": PLAIN, "tidied": TIDIED, "keywords": KEYWORDS,
        "dispatch": DISPATCH, "raises": RAISES, "dies": DIES, "no import": NO_IMPORT,
        "after": PLAIN,
    }  # fmt: skip
    top = tmp_path_factory.mktemp("sides")
    hello = Hello(tuple(entry for entry in sys.path if entry), 1, 0)
    found: dict[str, Counted | SideError] = {}
    with closing(Counter([TOKEN, HOT, RANDOM], hello)) as counter:
        for name, code in sources.items():
            tree = top / name
            (tree / "my_pkg").mkdir(parents=True)
            (tree / "my_pkg" / "__init__.py").write_text(code)
            place = str(tree)
            try:
                found[name] = counter.count(Side(name, TARGET, (place,), (place,), place, place))
            except SideError as error:
                found[name] = error
    return found


def against_base(counted: dict[str, Counted | SideError], head: str) -> Instructions:
    """Put a head's counts of the token beside those of two processes of base."""
    sides = [counted[name] for name in ("plain", head, "again")]
    counts, left_out = paired([TOKEN.name], *(side for side in sides if isinstance(side, Counted)))
    assert not left_out
    return counts[0]


@pytest.mark.slow
@needs_valgrind
def test_counts_show_a_planted_dispatch_and_no_refactoring(
    counted: dict[str, Counted | SideError],
) -> None:
    harmless, after = (against_base(counted, name) for name in ("tidied", "after"))
    assert (harmless.says, after.says) == ("same", "same"), (harmless, after)
    assert abs(harmless.change) < 0.02
    for name in ("keywords", "dispatch"):
        more = against_base(counted, name)
        assert more.says == "more", (name, more)
        assert more.change > 0.05


@pytest.mark.slow
@needs_valgrind
def test_counts_are_blind_to_where_rows_lie(counted: dict[str, Counted | SideError]) -> None:
    plain = counted["plain"]
    assert isinstance(plain, Counted)
    assert plain.calls[RANDOM.name] == pytest.approx(plain.calls[HOT.name], rel=0.01)
    assert plain.calls[HOT.name] > plain.calls[TOKEN.name] > 1_000


@pytest.mark.slow
@needs_valgrind
def test_a_target_that_fails_under_valgrind_is_told_of(
    counted: dict[str, Counted | SideError],
) -> None:
    raises = counted["raises"]
    assert isinstance(raises, Counted)
    assert raises.calls == {}
    assert "not here" in raises.wrong[TOKEN.name]
    assert str(counted["dies"]) == "its process ended with exit code 7 under Valgrind"
    assert "no_such_module" in str(counted["no import"])


@pytest.mark.slow
@needs_valgrind
def test_a_gate_that_can_not_tell_by_the_time_stays_inconclusive(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    repository = Repository(tmp_path / "user")
    base = repository.commit(PLAIN)
    repository.commit(DISPATCH)
    code, out, err = gate(
        repository, tmp_path, "--base", base, "--workload", TOKEN.workload.name, "--passes",
        "forward", "--no-conformance", "--seconds", "1", "--instructions", "--json", "-",
    )  # fmt: skip
    assert code == 3, out + err
    (found,) = json.loads(out)["instructions"]["benchmarks"]
    assert found["says"] == "more"
    assert found["head"] > found["base"] > 1_000
    assert "the time is inconclusive, and instructions alone are no regression" in found["note"]
    assert "instructions: gpt2-token-zipf-float32 forward:" in err


def gate(
    repository: Repository, cache: Path, *arguments: str, **variables: str
) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "embconform", "gate", "--target", TARGET, *arguments],
        cwd=repository.top, env=os.environ | {"XDG_CACHE_HOME": str(cache)} | variables,
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_without_valgrind_there_is_one_line_before_anything_is_made(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    git = shutil.which("git")
    assert git
    (tools / "git").symlink_to(git)
    (tmp_path / "user").mkdir()
    repository = Repository(tmp_path / "user")
    base = repository.commit(PLAIN)
    cache = tmp_path / "cache"
    code, out, err = gate(repository, cache, "--base", base, "--instructions", PATH=str(tools))
    assert (code, out) == (2, "")
    assert err.startswith("embconform: --instructions needs Valgrind; not found: valgrind and ")
    assert err.count("\n") == 1
    assert not list(cache.rglob("gate*"))


def test_instructions_go_with_a_base(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    code, out, err = gate(
        Repository(tmp_path / "user"), tmp_path, "--calibrate", "1", "--instructions"
    )
    assert (code, out) == (2, "")
    assert "--instructions goes with --base" in err


def test_only_linux_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions.sys, "platform", "darwin")
    assert lacking() == "--instructions needs Valgrind, which runs torch on Linux alone"


def test_the_calls_that_move_least_are_counted() -> None:
    assert [b.name for b in smallest_calls(default())] == [
        "gpt2-token-zipf-float32 forward",
        "gpt2-token-zipf-float32 sparse",
    ]
    forward, backward, sparse = (
        Benchmark(workload(500, 16, 64), PASSES[name]) for name in ("forward", "backward", "sparse")
    )
    assert (forward.moved, backward.moved, sparse.moved) == (4_096, 32_000, 4_096)


@pytest.mark.parametrize(
    ("base", "again", "head", "says"),
    [
        (1000.0, 1000.0, 1004.0, "same"),
        (1000.0, 1000.0, 1006.0, "more"),
        (1000.0, 1000.0, 994.0, "fewer"),
        (1000.0, 1010.0, 1030.0, "same"),
        (1000.0, 1010.0, 1040.0, "more"),
    ],
)
def test_a_change_is_told_beyond_what_base_repeats_to(
    base: float, again: float, head: float, says: str
) -> None:
    assert Instructions("token forward", base, again, head).says == says


def test_what_one_side_can_not_do_is_left_out() -> None:
    good, bad = Counted({"a": 1.0, "b": 2.0}, {}), Counted({"a": 1.0}, {"b": "RuntimeError"})
    counts, left_out = paired(["a", "b"], good, bad, good)
    assert [count.name for count in counts] == ["a"]
    assert left_out == ("b: head: RuntimeError",)


def report(call: Call, change: float, witness: Witness, *, void: bool = False) -> GateReport:
    track = Track(
        {CHANGE: [change, change * 1.01], SILENT: [0.0, 0.0], "planted": [0.1, 0.1]},
        call, threshold=0.03, seeing=True, why="can't tell" if call is Call.OPEN else "",
    )  # fmt: skip
    side = Tree("main", "a" * 40, Path("unused"), dirty=False)
    return GateReport(
        TARGET, side, side, (Row("token forward", track, 1e-6, 1e-6),), {}, (), None, void=void,
        restarts=2, together=True, apart="", how="", quoted="", command="embconform gate",
        environment={}, seconds=1.0, witness=witness,
    )  # fmt: skip


def counts(head: float) -> Witness:
    return Witness((Instructions("token forward", 1000.0, 1001.0, head),), (), 40.0)


@pytest.mark.parametrize(
    ("call", "change", "head", "code", "note"),
    [
        (Call.SLOWER, 0.2, 1200.0, 1, "more instructions; the time says so too: both agree"),
        (Call.SLOWER, 0.2, 1000.0, 1, "as many instructions; yet it is slower: not by its inst"),
        (Call.SLOWER, 0.2, 900.0, 1, "fewer instructions; yet it is slower"),
        (Call.OPEN, 0.2, 1200.0, 3, "the time is inconclusive, and instructions alone are no reg"),
        (Call.OPEN, 0.2, 900.0, 3, "the time is inconclusive, and instructions alone are no proof"),
        (Call.OPEN, 0.2, 1000.0, 3, "as many instructions; the time is inconclusive"),
        (Call.FINE, 0.0, 2000.0, 0, "more instructions; the time is not longer by as much"),
        (Call.FINE, 0.0, 900.0, 0, "fewer instructions; the time is not shorter by as much"),
        (Call.FINE, 0.0, 1000.0, 0, "as many instructions; the time says so too"),
        (Call.FINE, -0.2, 1200.0, 0, "more instructions; yet it is faster"),
        (Call.FINE, -0.2, 900.0, 0, "fewer instructions; the time says so too"),
        (Call.FINE, -0.2, 1000.0, 0, "as many instructions; yet it is faster"),
    ],
)
def test_a_second_witness_is_heard_and_decides_nothing(
    call: Call, change: float, head: float, code: int, note: str
) -> None:
    found = report(call, change, counts(head))
    assert found.exit_code == code
    (row,) = json.loads(as_json(found))["instructions"]["benchmarks"]
    assert note in row["note"]
    assert row["change"] == pytest.approx(head / 1000.5 - 1)
    assert note in markdown(found)
    console = Console(width=300, file=io.StringIO())
    terminal(found, console)
    assert note in console.file.getvalue()  # type: ignore[attr-defined]
    (case,) = (
        case for case in ET.fromstring(junit(found)).iter("testcase")
        if case.get("name") == "instructions.token forward"
    )  # fmt: skip
    assert [child.tag for child in case] == ["system-out"]
    assert note in (case.findtext("system-out") or "")


def test_the_report_says_what_counts_are_blind_to() -> None:
    assert "hot and random rows count the same" in markdown(report(Call.FINE, 0.0, counts(1000.0)))


def test_a_void_run_has_no_time_to_agree_with() -> None:
    found = report(Call.SLOWER, 0.2, counts(1200.0), void=True)
    assert found.exit_code == 3
    assert "the time is inconclusive" in as_json(found)


def test_what_could_not_be_counted_is_said_everywhere() -> None:
    found = report(Call.FINE, 0.0, Witness((), ("head: it fails",)))
    assert found.exit_code == 0
    assert json.loads(as_json(found))["instructions"]["left_out"] == ["head: it fails"]
    assert "instructions: not counted: head: it fails" in markdown(found)
    suite = ET.fromstring(junit(found))[0]
    assert suite.get("skipped") == "1"
    assert suite.get("failures") == "0"
