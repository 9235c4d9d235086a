"""A run that is cut into parts, shared out, merged or resumed is the run of one process."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest

from embconform.backends.adapt import as_backend
from embconform.backends.targets import resolve
from embconform.commands import main
from embconform.conformance.options import RunOptions
from embconform.conformance.render.json import render
from embconform.conformance.running.engine import Spread, run
from embconform.conformance.running.explorer import Explorer
from embconform.conformance.running.in_process import InProcess
from embconform.conformance.running.part import Part
from embconform.conformance.running.part_record import read
from embconform.reference.clause import Profile

PLANTED = """
import os
from torch.nn.functional import embedding

def embed(input, weight, padding_idx=None):
    if os.path.exists("calls"):  # somebody wants to know that the run is at work
        with open("calls", "ab") as calls:
            calls.write(b".")
    if not padding_idx:  # 0 is an index
        return embedding(input, weight)
    return embedding(input, weight.float(), padding_idx).to(weight.dtype)
"""
ENOUGH = 400
"""Calls after which a run has counted cases, and is far from the end: there are 1,866."""
LOOKUP = "lookup.[!h]*,lookup.half-precision"
"""All but the huge table, which is refused while others leave less than 12 GiB of memory."""
EAGER = ("eager", "--budget", "quick", "--max-examples", "700", "--select",
         f"{LOOKUP},padding.*,gradient.*")  # fmt: skip
BROKEN = ("planted.py:embed", "--budget", "quick", "--max-examples", "200", "--select",
          f"{LOOKUP},padding.*,gradient.*,module.*")  # fmt: skip
SHORT = ("planted.py:embed", "--budget", "quick", "--max-examples", "150", "--select", "padding.*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("spread")
    (made / "planted.py").write_text(PLANTED)
    return made


def embconform(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a command line here, on targets in processes of their own; give the code and stderr."""
    said = StringIO()
    with chdir(folder), redirect_stdout(StringIO()), redirect_stderr(said):
        code = main.run(arguments)
    return code, said.getvalue()


def validated(folder: Path, name: str, *arguments: str) -> Any:
    code, said = embconform(folder, "validate", *arguments, "--json", name)
    assert code in (0, 1), said
    return timeless(json.loads((folder / name).read_text()))


def timeless(value: Any) -> Any:
    """Leave times out of a report."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key != "seconds"}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    """The reports of runs in one process."""
    made = {
        "eager": validated(folder, "eager.json", *EAGER),
        "broken": validated(folder, "broken.json", *BROKEN),
    }
    assert made["eager"]["verdict"] == "conformant"
    assert len([c for c in made["broken"]["clauses"] if c["status"] == "fail"]) > 3
    return made


RUNS = {"eager": EAGER, "broken": BROKEN}
SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("workers", ["2", pytest.param("3", marks=SLOW)])
def test_workers_find_what_one_finds(
    folder: Path, alone: dict[str, Any], name: str, workers: str
) -> None:
    spread = validated(folder, f"{name}-w.json", *RUNS[name], "--workers", workers)
    assert spread == alone[name]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("of", [2, pytest.param(3, marks=SLOW), pytest.param(5, marks=SLOW)])
def test_shards_are_merged_into_the_whole(
    folder: Path, alone: dict[str, Any], name: str, of: int
) -> None:
    files = [f"{name}-{k}-{of}.json" for k in range(1, of + 1)]
    for k, file in enumerate(files, 1):
        part = validated(folder, file, *RUNS[name], "--shard", f"{k}/{of}")
        assert part["cases"] < alone[name]["cases"]
    random.Random(of).shuffle(files)
    code, said = embconform(folder, "merge", *files, "--json", "whole.json")
    assert code == (0 if name == "eager" else 1), said
    assert timeless(json.loads((folder / "whole.json").read_text())) == alone[name]


def counted(parts: list[Part]) -> Any:
    """Merge parts and give what can be compared."""
    whole = Part()
    for part in parts:
        whole.merge(deepcopy(part))
    return {
        clause: (
            tally.exercised, tally.failed, tally.crashed, tally.late, tally.refused, tally.refusal,
            tally.smallest and (tally.smallest.cost, tally.smallest.unit),
        )
        for clause, tally in sorted(whole.tallies.items())
    }, whole.cases, sorted(whole.done)  # fmt: skip


def test_any_partition_in_any_order_is_the_whole(folder: Path) -> None:
    """Merging is associative and commutative, ties of cost included."""
    backend = as_backend("planted", resolve(f"{folder / 'planted.py'}:embed"))
    explorer = Explorer(
        InProcess(backend), RunOptions(Profile.TORCH, budget="quick", max_examples=200)
    )
    parts = [explorer.do(number) for number in range(0, len(explorer.work), 3)]
    units = [part for part in parts if part]
    whole = counted(units)
    smallest = [facts[-1] for facts in whole[0].values() if facts[-1]]
    assert len({cost for cost, _ in smallest}) < len(smallest)  # ties occur
    rng = random.Random(0)
    for groups in (2, 3, 7):
        mixed = units[:]
        rng.shuffle(mixed)
        sums = []
        for k in range(groups):
            total = Part()
            for part in mixed[k::groups]:
                total.merge(deepcopy(part))
            sums.append(total)
        assert counted(sums) == whole


def test_a_run_that_was_cut_while_it_shrank_goes_on(folder: Path) -> None:
    backend = as_backend("planted", resolve(f"{folder / 'planted.py'}:embed"))
    options = RunOptions(Profile.TORCH, budget="quick", select="padding.*", max_examples=120)
    explored = False

    def note(done: int, total: int, failing: int) -> None:
        nonlocal explored
        del failing
        explored = done == total

    cut = run(backend, options, target="t", progress=note, stop=lambda: explored)
    assert cut.interrupted
    assert cut.part is not None
    assert cut.part.part.done == set(cut.part.mine)
    assert not any(tally.shrunk for tally in cut.part.part.tallies.values())
    before = read(json.loads(render([cut])))
    resumed = run(backend, options, target="t", spread=Spread(before=before.part))
    whole = run(backend, options, target="t")
    assert whole.part is None
    assert timeless(json.loads(render([resumed]))) == timeless(json.loads(render([whole])))


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "embconform", "validate", *arguments],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def start_and_wait(folder: Path, *arguments: str, processes: int) -> subprocess.Popen[str]:
    """Start a run of the planted target, and wait until it has called it, but not to the end."""
    calls = folder / "calls"
    calls.write_bytes(b"")
    started = start(folder, *arguments)
    while len(family(started)) < processes or calls.stat().st_size < ENOUGH:
        assert started.poll() is None
        time.sleep(0.01)
    calls.unlink()
    return started


def interrupted(folder: Path, name: str, *arguments: str, processes: int) -> Any:
    """Send SIGINT while the run is at work; no process may stay."""
    started = start_and_wait(folder, *arguments, "--json", name, processes=processes)
    children = family(started)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=120)
    assert started.returncode == 130, said
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert (len(gone), alive) == (len(children), [])
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize("workers", [pytest.param("1", marks=SLOW), "2"])
def test_a_run_that_was_cut_goes_on(folder: Path, alone: dict[str, Any], workers: str) -> None:
    processes = 1 + int(workers) + int(workers) - 1  # a fork server, targets, helpers
    more = ("--workers", workers)
    cut = interrupted(folder, "cut.json", *BROKEN, *more, processes=processes)
    assert cut["interrupted"]
    assert cut["verdict"] == "nonconformant"
    assert 0 < cut["cases"] < alone["broken"]["cases"]
    resumed = validated(folder, "resumed.json", *BROKEN, "--resume", "cut.json")
    assert resumed == alone["broken"]


def test_what_was_cut_can_be_merged_and_goes_on_then(folder: Path, alone: dict[str, Any]) -> None:
    interrupted(folder, "cut1.json", *BROKEN, "--shard", "1/2", processes=2)
    validated(folder, "other2.json", *BROKEN, "--shard", "2/2")
    code, said = embconform(folder, "merge", "cut1.json", "other2.json", "--json", "cut.json")
    assert code == 1, said
    resumed = validated(folder, "resumed.json", *BROKEN, "--resume", "cut.json")
    assert resumed == alone["broken"]


def test_a_helper_that_dies_has_its_work_done_by_others(
    folder: Path, alone: dict[str, Any]
) -> None:
    call = (*BROKEN, "--workers", "2", "--json", "killed.json")
    started = start_and_wait(folder, *call, processes=4)
    (helper,) = [p for p in family(started) if "helper_process" in " ".join(p.cmdline())]
    (server,) = [p for p in family(started) if p.parent() == psutil.Process(started.pid)
                 and p != helper]  # fmt: skip
    targets = server.children()
    helper.kill()
    gone, _ = psutil.wait_procs(targets, timeout=20)
    assert len(gone) >= 1  # its own; the other goes on
    _, said = started.communicate(timeout=300)
    assert started.returncode == 1, said
    assert timeless(json.loads((folder / "killed.json").read_text())) == alone["broken"]


@pytest.fixture(scope="module")
def short(folder: Path) -> Path:
    for k in (1, 2):
        validated(folder, f"s{k}.json", *SHORT, "--shard", f"{k}/2")
    return folder


class TestRefusals:
    @pytest.fixture
    def shards(self, short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(short)
        return short

    def refused(self, capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
        assert main.run(arguments) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("seed", 1, "the seed is 0 in one and 1 in the other"),
            ("budget", "default", "the budget is quick in one and default in the other"),
            ("target", "other", "is of planted.py:embed, and"),
            ("schema", 2, "has schema 2; this embconform reads schema 1"),
            ("part", None, "it is a whole run's report"),
            ("part", {"shard": 1}, "it is no report of embconform, or a damaged one"),
            ("part", 7, "it is no report of embconform, or a damaged one"),
            ("environment", {"torch": "1"}, "the version of"),
        ],
    )
    def test_another_run(
        self, shards: Path, capfd: pytest.CaptureFixture[str], key: str, value: object, said: str
    ) -> None:
        document = json.loads((shards / "s2.json").read_text())
        (shards / "odd.json").write_text(json.dumps(document | {key: value}))
        line = self.refused(capfd, "merge", "s1.json", "odd.json", "--json", "never.json")
        assert said in line
        assert not (shards / "never.json").exists()

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("merge", "s1.json"), "shard 2/2 is missing"),
            (("merge", "s1.json", "s1.json"), "are both shard 1/2"),
            (("merge", "s1.json", "planted.py"), "can't read planted.py as JSON"),
            (("merge", "s1.json", "nowhere.json"), "can't read nowhere.json"),
            (("validate", "eager", "--shard", "3/2"), "3/2 is not I/N with 1 <= I <= N"),
            (("validate", "eager", "--shard", "0/2"), "0/2 is not I/N"),
            (("validate", "eager", "--shard", "1/2", "-x"), "leave one out"),
            (("validate", "eager", "--workers", "0"), "--workers"),
            (("validate", "eager", "--workers", "2", "--isolation", "none"), "--isolation process"),
            (("validate", "eager", "--resume", "s1.json"), "holds no run of eager"),
            (("validate", "planted.py:embed", "--resume", "s1.json"), "add --shard 1/2"),
            (
                ("validate", *SHORT, "--shard", "1/2", "--resume", "s1.json", "--seed", "3"),
                "the seed is 0 in one and 3 in the other",
            ),
        ],
    )
    def test_calls(
        self, shards: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
    ) -> None:
        assert said in self.refused(capfd, *arguments)
