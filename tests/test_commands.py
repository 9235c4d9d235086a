import json
import os
import pty
import re
import subprocess
import sys
import time
from xml.etree import ElementTree as ET

import pytest

torch = pytest.importorskip("torch")

import cli_support  # noqa: E402
from cli_support import GOOD, MUST, one_line, process  # noqa: E402

from embconform.backends.deviations import Deviation  # noqa: E402
from embconform.commands import main  # noqa: E402
from embconform.conformance.report import Status  # noqa: E402
from embconform.conformance.running import engine  # noqa: E402
from embconform.reference.clause import Profile, select  # noqa: E402

cli, folder, runs = cli_support.cli, cli_support.folder, cli_support.runs


# the verdict


def test_a_conformant_target(folder, runs, cli):
    code, out, err = cli("validate", "good.py:embed")
    assert (code, err) == (0, "")
    assert out.startswith("good.py:embed  conformant  torch profile\n")
    assert "replay  embconform validate good.py:embed --profile torch --seed 0\n" in out
    target, options = runs.seen[0]
    backend = target.description
    assert backend.capabilities.options == {"padding_idx"}
    assert options == engine.RunOptions(profile=Profile.TORCH)


def test_a_nonconformant_target(folder, runs, cli):
    runs.broken = {MUST: Status.FAIL}
    code, out, _ = cli("validate", "good.py:embed")
    assert code == 1
    assert out.startswith("good.py:embed  nonconformant  torch profile, 1 clause broken\n")
    assert "      print(1)\n" in out


def test_every_option_reaches_the_engine(folder, runs, cli):
    (folder / "mine.toml").write_text(
        f'[[deviation]]\nclause = "{MUST}"\nreason = "r"\nlink = "l"\n'
        f'[[deviation]]\nclause = "{MUST}"\nreason = "old"\nlink = "l"\nversions = {{torch="<1"}}\n'
    )
    options = (
        "--profile textbook --budget quick --max-examples 50 --seed 7 --select padding.* "
        "--deviations mine.toml --strict --fail-fast"
    )
    code, out, _ = cli("validate", "good.py:embed", *options.split(" "))
    assert code == 0
    assert runs.seen[0][1] == engine.RunOptions(
        profile=Profile.TEXTBOOK, budget="quick", max_examples=50, seed=7, select="padding.*",
        deviations=(Deviation(MUST, "r", "l"),), strict=True, fail_fast=True,
    )  # fmt: skip
    replay = (
        "replay  embconform validate good.py:embed --profile textbook --seed 7 --budget quick "
        "--max-examples 50 --select 'padding.*' --deviations mine.toml --strict --fail-fast\n"
    )
    assert replay in out


def test_own_deviations_come_before_the_backends(folder, runs, cli):
    (folder / "theirs.toml").write_text(
        f'[[deviation]]\nclause = "{MUST}"\nreason = "theirs"\nlink = "l"\n'
        '[[deviation]]\nclause = "padding.negative"\nreason = "theirs"\nlink = "l"\n'
    )
    (folder / "mine.toml").write_text(
        f'[[deviation]]\nclause = "{MUST}"\nreason = "mine"\nlink = "l"\n'
    )
    (folder / "b.py").write_text(
        "from pathlib import Path\nfrom embconform.backends.backend import Backend\n"
        "b = Backend('b', functional=lambda i, w: w[i], deviations=Path('theirs.toml'))\n"
    )
    assert cli("validate", "b.py:b", "--deviations", "mine.toml")[0] == 0
    rows = runs.seen[0][1].deviations
    assert [(row.clause, row.reason) for row in rows] == [
        (MUST, "mine"), ("padding.negative", "theirs"),
    ]  # fmt: skip


def test_the_backends_first_profile_is_the_default(folder, runs, cli):
    (folder / "b.py").write_text(
        "from embconform.backends.backend import Backend\n"
        "b = Backend('b', functional=lambda i, w: w[i], profiles=('textbook', 'torch'))\n"
    )
    code, out, _ = cli("validate", "b.py:b")
    assert code == 0
    assert "textbook profile" in out


def test_several_targets(folder, runs, cli):
    (folder / "two.py").write_text(GOOD)
    code, out, _ = cli("validate", "good.py:embed", "two.py:embed", "good.py:embed", "--json", "j")
    assert code == 0
    assert len(runs.seen) == 2
    assert "\nSummary\n  good.py:embed  conformant" in out
    assert [d["target"] for d in json.loads((folder / "j").read_text())] == [
        "good.py:embed", "two.py:embed",
    ]  # fmt: skip


def test_the_worst_of_several_counts(folder, runs, cli):
    (folder / "two.py").write_text(GOOD)
    runs.act = lambda: runs.broken.update({MUST: Status.FAIL} if len(runs.seen) == 1 else {})
    original = dict(runs.broken)
    assert cli("validate", "good.py:embed", "two.py:embed")[0] == 1
    runs.seen.clear()
    runs.broken = original
    assert cli("validate", "good.py:embed", "two.py:embed", "-x")[0] == 1
    assert len(runs.seen) == 1


# files


def test_all_files(folder, runs, cli):
    runs.broken = {MUST: Status.FAIL}
    code, out, _ = cli(
        "validate", "good.py:embed", "--json", "a.json", "--junit", "a.xml", "--markdown", "a.md",
        "--repro-dir", "r",
    )  # fmt: skip
    assert code == 1
    document = json.loads((folder / "a.json").read_text())
    assert document["verdict"] == "nonconformant"
    assert document["replay"] in out
    assert ET.parse(folder / "a.xml").getroot().find("testsuite").get("failures") == "1"
    assert (folder / "a.md").read_text().startswith("### ❌ embconform: `good.py:embed` is nonconf")
    assert [path.name for path in (folder / "r").iterdir()] == [f"{MUST}.py"]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_json_on_stdout_is_all_there_is_on_stdout(folder, runs, cli):
    code, out, err = cli("validate", "good.py:embed", "--json", "-")
    assert code == 0
    assert json.loads(out)["verdict"] == "conformant"
    assert err.startswith("good.py:embed  conformant")


def test_a_pipe_is_written_to_and_stays(folder, runs, cli):
    os.mkfifo(folder / "pipe")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        assert cli("validate", "good.py:embed", "--json", "pipe")[0] == 0
        assert json.loads(reader.communicate(timeout=20)[0])["schema"] == 1
    assert (folder / "pipe").is_fifo()


@pytest.mark.parametrize("option", ["--json", "--junit", "--markdown"])
@pytest.mark.parametrize("path", ["no/such/x", "good.py/x", ".", "/proc/embconform.out"])
def test_an_unwritable_path_is_told_before_the_import(folder, runs, cli, option, path):
    (folder / "marks.py").write_text("open('imported', 'w').close()\n" + GOOD)
    before = sorted(folder.iterdir())
    result = cli("validate", "marks.py:embed", "--repro-dir", "ok", option, path)
    said = {"no/such/x": "there is no folder", "good.py/x": "is not a folder", ".": "a folder"}
    one_line(result, f"can't write {option} {path}: ")
    assert said.get(path, "") in result[2]
    assert sorted(folder.iterdir()) == before
    assert runs.seen == []


def test_an_unwritable_repro_dir(folder, runs, cli):
    one_line(cli("validate", "good.py:embed", "--repro-dir", "good.py"), "is not a folder")
    one_line(cli("validate", "good.py:embed", "--repro-dir", "/proc/x/y"), "--repro-dir")


def test_only_json_may_go_to_stdout(folder, runs, cli):
    one_line(cli("validate", "good.py:embed", "--junit", "-"), "only --json may go to stdout")


def test_one_file_for_two_reports(folder, runs, cli):
    result = cli("validate", "good.py:embed", "--json", "a", "--junit", "./a")
    one_line(result, "--json and --junit are the same file")


def test_a_disk_that_fills_up_during_the_run(folder, runs, cli):
    (folder / "out").mkdir()
    (folder / "out" / "j").write_text("old")

    def fill():
        (folder / "out" / "j").unlink()
        (folder / "out").rmdir()

    runs.act = fill
    code, out, err = cli("validate", "good.py:embed", "--json", "out/j")
    assert code == 2
    assert "conformant" in out
    assert err == "embconform: can't write --json out/j: No such file or directory\n"


# clauses, backends, version, speed


def test_clauses_lists_all(cli):
    code, out, _ = cli("clauses")
    assert code == 0
    ids = {clause.id for profile in Profile for clause in select(profile)}
    assert {line.split()[0] for line in out.splitlines()} == ids
    assert "\x1b" not in out


@pytest.mark.parametrize("pattern", ["padding.*", "padding"])
def test_clauses_of_a_group_and_profile(cli, pattern):
    _, out, _ = cli("clauses", pattern, "--profile", "textbook")
    listed = [line.split()[0] for line in out.splitlines()]
    assert listed == [clause.id for clause in select(Profile.TEXTBOOK, "padding.*")]


def test_one_clause(cli):
    code, out, _ = cli("clauses", "padding.negative")
    assert code == 0
    for part in ("padding.negative\n", "MUST", "torch", "gradient, padding_idx", "source"):
        assert part in out
    assert "    weight.grad[3]" in out


def test_every_clause_can_be_shown(cli):
    for clause in select(Profile.TORCH) + select(Profile.TEXTBOOK):
        code, out, _ = cli("clauses", clause.id)
        assert code == 0
        assert clause.sentence in out


def test_backends_are_listed_with_their_state(cli, monkeypatch):
    from embconform.backends import catalogue

    extra = catalogue.Named("mine", "no_such_pkg:x", registered_by="my-dist")
    monkeypatch.setattr(catalogue, "_registered", lambda: iter([extra]))
    code, out, _ = cli("backends")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["eager"].endswith("ready")
    assert lines["textbook"].endswith("ready")
    assert "from my-dist" in lines["mine"]
    assert lines["mine"].endswith("can't run here: no module named 'no_such_pkg'")


def test_version_and_help(cli):
    assert cli("--version")[:2] == (0, "embconform, version 0.1.0\n")
    assert cli()[0] == 0
    code, out, _ = cli("validate", "--help")
    assert code == 0
    assert "--repro-dir DIR" in out


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["clauses"], ["validate", "-h"]])
def test_torch_is_not_imported_for_words(arguments):
    code = (
        "import sys\nfrom embconform.commands.main import run\n"
        f"code = run({arguments!r})\n"
        "heavy = {'torch', 'numpy', 'hypothesis', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy or code else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")


def test_clauses_is_quick():
    start = time.perf_counter()
    assert process("clauses").returncode == 0
    assert time.perf_counter() - start < 3  # 0.15 s on an idle machine


def test_the_process_exits_with_the_code(tmp_path):
    result = process("validate", "absent.py:f", "--json", "x", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "embconform: absent.py:f: no file absent.py\n"
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_shows_progress(folder, runs, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    runs.act = lambda: time.sleep(0.4)
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main.run(["validate", "good.py:embed"]) == 0
    os.set_blocking(leader, False)
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(leader, 1 << 20).decode())
    os.close(leader)
    assert "good.py:embed" in seen
    assert "50%" in seen
    assert re.search(r"\d:\d\d:\d\d|-:--:--", seen)


def test_strict_report_counts(folder, runs, cli):
    should = next(c for c in select(Profile.TORCH) if c.level == "SHOULD")
    runs.broken = {should.id: Status.FAIL}
    assert cli("validate", "good.py:embed")[0] == 0
    assert cli("validate", "good.py:embed", "--strict")[0] == 1


def test_the_real_engine(folder):
    (folder / "wrong.py").write_text("def embed(input, weight): return weight[input] + 1")
    options = ["--select", "lookup.rows", "--max-examples", "40", "--json", "-", "--repro-dir", "r"]
    result = process("validate", "good.py:embed", "wrong.py:embed", *options, cwd=folder)
    assert result.returncode == 1
    right, wrong = json.loads(result.stdout)
    assert (right["verdict"], wrong["verdict"]) == ("conformant", "nonconformant")
    (clause,) = wrong["clauses"]
    assert (clause["id"], clause["status"]) == ("lookup.rows", "fail")
    (path,) = (folder / "r").glob("2-*/lookup.rows.py")
    script = subprocess.run([sys.executable, path], cwd=folder, capture_output=True, check=False)
    assert script.returncode == 1
