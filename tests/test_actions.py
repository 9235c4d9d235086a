"""The actions, the workflows and GitLab's template do what they say, and obey nobody's text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from actions_support import ACTIONS, EVERY_FILE, ROOT, WORKFLOWS, Machine, fill, load, steps

from embconform.backends.catalogue import _BUILT_IN

TOOLS = Path(sys.executable).parent
HOSTILE = "$(touch owned) `touch owned` \"; touch owned; #' ${IFS} @me <!-- --> \n::error::x"
GITLAB = ROOT / "docs/ci/embconform.gitlab-ci.yml"
ON_A_DEVICE = {"cuda", "cuda-compile", "cuda-graph", "cuda-cpp"}
PULL_REQUEST = {"pull_request": {"number": 7, "base": {"sha": "base-sha"}}}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return Machine(tmp_path, workspace, PULL_REQUEST)


def lint(folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run both linters in a folder that has a .github."""
    actionlint, zizmor = (shutil.which(name, path=str(TOOLS)) for name in ("actionlint", "zizmor"))
    assert actionlint, "pip install 'embconform[test]'"
    assert zizmor, "pip install 'embconform[test]'"
    shell = ["-shellcheck", str(TOOLS / "shellcheck")]
    files = sorted(map(str, (folder / ".github/workflows").glob("*.yml")))
    return [
        subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        for words in (
            [actionlint, "-no-color", *shell, *files],
            [zizmor, "--offline", "--no-progress", "--persona", "pedantic", ".github"],
        )
    ]  # fmt: skip


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Give a copy of the workflows that linters accept as a repository."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    (tmp_path / ".git").mkdir()
    return tmp_path


def test_linters_find_nothing(copied: Path) -> None:
    for done in lint(copied):
        assert done.returncode == 0, done.stdout + done.stderr


def test_linters_find_what_is_wrong(copied: Path) -> None:
    (copied / ".github/workflows/bad.yml").write_text(
        "name: bad\non: pull_request_target\npermissions: {}\njobs:\n  bad:\n    name: bad\n"
        "    runs-on: ubuntu-24.04\n    steps:\n"
        "      - run: echo ${{ github.event.pull_request.title }}\n"
        "      - uses: actions/checkout@v6\n"
    )
    actionlint, zizmor = lint(copied)
    assert actionlint.returncode != 0
    assert "untrusted" in actionlint.stdout
    assert zizmor.returncode != 0
    for audit in ("template-injection", "dangerous-triggers", "unpinned-uses"):
        assert audit in zizmor.stdout


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: path.parent.name + path.name)
def test_scripts_take_their_inputs_from_the_environment(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "pull_request_target" not in text
    for step in steps(path):
        assert "${{" not in step.get("run", "")
        used = step.get("uses")
        assert used is None or re.fullmatch(r"\$/\.github/actions/\w+|[\w/-]+@[0-9a-f]{40}", used)
    for used, said in re.findall(r"uses: (\S+@\S+)(.*)", text):
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", said), used


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_have_the_permissions_that_they_need(path: Path) -> None:
    document = load(path)
    assert document["permissions"] == {}
    for name, job in document["jobs"].items():
        writes = {key for key, how in job["permissions"].items() if how == "write"}
        assert writes == ({"pull-requests"} if name == "comment" else set())
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_the_job_that_writes_runs_no_foreign_code() -> None:
    (job,) = (load(path)["jobs"].get("comment") for path in WORKFLOWS if path.stem == "embconform")
    assert job
    used = [step.get("uses", "").partition("@")[0] for step in job["steps"]]
    assert used == ["actions/download-artifact", "$/.github/actions/comment"]


def test_every_backend_has_a_job() -> None:
    jobs = load(ROOT / ".github/workflows/ci.yml")["jobs"]
    rows = jobs["backends"]["strategy"]["matrix"]["include"]
    named = [name for row in rows for name in row["backends"].split()]
    assert sorted(named) == sorted({each.name for each in _BUILT_IN} - ON_A_DEVICE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {extra for row in rows for extra in row["extra"].split(",") if extra}
    assert extras <= project["optional-dependencies"].keys()
    wanted = re.compile(r'missing\(.*extra="([\w,-]+)"\)')
    for each in _BUILT_IN:
        if each.name in ON_A_DEVICE:
            continue
        module = each.path.partition(":")[0].removeprefix("embconform.backends.")
        found = wanted.search((ROOT / f"backends/{module}.py").read_text(encoding="utf-8"))
        extra = next(row["extra"] for row in rows if each.name in row["backends"].split())
        assert extra == (found[1] if found else ""), each.name


def test_the_job_of_a_backend_ends_as_the_validation_does(machine: Machine) -> None:
    job = load(ROOT / ".github/workflows/ci.yml")["jobs"]["backends"]
    script = next(step["run"] for step in job["steps"] if step.get("name") == "Validate")
    for code in ("0", "1"):
        machine.env = {"FAKE_VALIDATE": code, "BACKENDS": "keras-torch keras-jax"}
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script], cwd=machine.workspace,
            env=machine.around(ROOT), check=False,
        )  # fmt: skip
        assert done.returncode == int(code)
        assert machine.calls("validate")[-1][:3] == ["validate", "keras-torch", "keras-jax"]
    assert machine.summary == "--markdown of first\n" * 2


def test_validate_is_called_as_the_inputs_say(machine: Machine) -> None:
    (machine.workspace / "base.json").write_text("{}")
    ran = machine.run(
        "embconform", target="mine:embed", profile="textbook", budget="quick", max_examples="9",
        seed="3", select="padding.*", deviations="eager", baseline="base.json",
    )  # fmt: skip
    assert ran.code == 0, ran.printed
    (words,) = machine.calls("validate")
    given = dict(zip(words[1:-2:2], words[2:-2:2], strict=True))
    folder = ran.outputs["reports"]
    assert given == {
        "--budget": "quick", "--seed": "3", "--select": "padding.*", "--profile": "textbook",
        "--max-examples": "9", "--deviations": "eager", "--baseline": "base.json",
        "--json": f"{folder}/report.json", "--junit": f"{folder}/report.xml",
        "--markdown": f"{folder}/report.md", "--repro-dir": f"{folder}/repro",
    }  # fmt: skip
    assert words[-2:] == ["--", "mine:embed"]
    assert (ran.outputs["code"], ran.outputs["gate-code"]) == ("0", "")
    assert machine.summary == "--markdown of first\n"
    assert not machine.calls("gate")
    installed = (machine.log / "python").read_text().split()
    assert installed[:-1] == ["-m", "pip", "install", "--quiet", "--"]
    assert Path(installed[-1]).resolve() == ROOT


def test_defaults_leave_the_rest_to_embconform(machine: Machine) -> None:
    ran = machine.run("embconform", target="mine:embed", embconform="installed", baseline="none")
    assert ran.code == 0, ran.printed
    (words,) = machine.calls("validate")
    assert not {"--profile", "--max-examples", "--deviations", "--baseline"} & set(words)
    assert not (machine.log / "python").exists()


def test_text_of_strangers_is_not_run(machine: Machine) -> None:
    given = {"target": HOSTILE, "select": HOSTILE, "profile": HOSTILE, "deviations": HOSTILE}
    machine.env["FAKE_SAID"] = HOSTILE
    ran = machine.run("embconform", **given, gate="true", gate_arguments="--seconds $(touch owned)")
    assert ran.code == 0, ran.printed
    (words,) = machine.calls("validate")
    assert words[-1] == HOSTILE
    (words,) = machine.calls("gate")
    assert words[1:5] == ["--target", HOSTILE, "--base", "base-sha"]
    assert words[6:9] == ["--seconds", "$(touch", "owned)"]
    assert not list(machine.workspace.parent.rglob("owned"))
    assert re.fullmatch(r"[0-9a-f]{12}", ran.outputs["key"])


def test_one_comment_is_written_and_then_written_anew(machine: Machine) -> None:
    if not shutil.which("jq"):
        pytest.skip("no jq, which the stand-in of gh needs: apt-get install jq")
    first = machine.run("embconform", target="mine:embed")
    marker = f"<!-- embconform:{first.outputs['key']} -->"
    (mine,) = machine.comments
    assert mine["body"].startswith(f"{marker}\n--markdown of first\n")
    assert "(https://github.example/me/mine/actions/runs/42)" in mine["body"]
    stranger = {"id": 9, "user": {"login": "stranger"}, "body": mine["body"]}
    (machine.log / "comments.json").write_text(json.dumps([stranger, mine]))
    machine.env["FAKE_SAID"] = "second"
    machine.run("embconform", target="mine:embed")
    assert [each["id"] for each in machine.comments] == [9, 1]
    assert machine.comments[0] == stranger
    assert "--markdown of second\n" in machine.comments[1]["body"]
    machine.run("embconform", target="other:embed")
    assert len(machine.comments) == 3


def test_no_comment_is_asked_for_or_possible(machine: Machine) -> None:
    assert machine.run("embconform", target="mine:embed", comment="false").code == 0
    machine.event = {}
    assert machine.run("embconform", target="mine:embed").code == 0
    assert not (machine.log / "gh").exists()
    machine.event = PULL_REQUEST
    machine.env["FAKE_FORBIDDEN"] = "yes"
    ran = machine.run("embconform", target="mine:embed")
    assert ran.code == 0
    assert "::warning title=embconform::no comment" in ran.printed
    assert not machine.comments


@pytest.mark.parametrize(
    ("validate", "gate", "inconclusive", "code"),
    [
        (0, 0, "pass", 0), (1, 0, "pass", 1), (2, 0, "pass", 2), (3, 3, "pass", 3),
        (0, 1, "pass", 1), (0, 2, "pass", 2), (0, 3, "pass", 0), (0, 3, "fail", 3),
    ],
)  # fmt: skip
def test_the_job_ends_as_the_verdicts_do(
    machine: Machine, validate: int, gate: int, inconclusive: str, code: int
) -> None:
    machine.env = {"FAKE_VALIDATE": str(validate), "FAKE_GATE": str(gate)}
    commit(machine.workspace)
    ran = machine.run(
        "embconform", target="mine:embed", gate="true", base="HEAD", comment="false",
        inconclusive=inconclusive, gate_arguments="--seconds 9 --no-conformance",
    )  # fmt: skip
    assert ran.code == code, ran.printed
    ((_, *words),) = machine.calls("gate")
    assert words[:7] == [
        "--target", "mine:embed", "--base", "HEAD", "--allow-dirty", "--seconds", "9",
    ]  # fmt: skip
    assert ("no report" in machine.summary) is (2 in (validate, gate))
    assert len(machine.summary.splitlines()) == 3  # both reports, told apart


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path) -> str:
    if not (folder / ".git").exists():
        git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "a step")
    return git(folder, "rev-parse", "HEAD")


def test_the_base_of_a_shallow_clone_is_fetched(machine: Machine, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    base = commit(origin)
    commit(origin)
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    machine.workspace.rmdir()
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{origin}", str(machine.workspace))
    machine.event = {"pull_request": {"base": {"sha": base}}}
    ran = machine.run("embconform", target="mine:embed", gate="true")
    assert ran.code == 0, ran.printed
    ((*_, word, named, _, _, _, _, _, _, _),) = [each[:13] for each in machine.calls("gate")]
    assert (word, named) == ("--base", base)


def test_without_a_base_there_is_no_gate(machine: Machine) -> None:
    machine.event = {}
    ran = machine.run("embconform", target="mine:embed", gate="true")
    assert (ran.code, machine.calls("gate")) == (0, [])
    assert "no base is given" in ran.printed


def test_the_gates_report_is_left_out_where_both_are_too_long(machine: Machine) -> None:
    machine.env["FAKE_SAID"] = "é" * 40_000
    commit(machine.workspace)
    ran = machine.run("embconform", target="mine:embed", gate="true", base="HEAD")
    comment = Path(ran.outputs["reports"], "comment.md").read_text(encoding="utf-8")
    assert len(comment) < 65_000
    assert "the summary of the run has it" in comment
    assert len(machine.summary) > 80_000


CURL = f"""#!{sys.executable}
import json, os, pathlib, sys
words = sys.argv[1:]
log = pathlib.Path(os.environ["LOG"])
with (log / "curl").open("a") as file:
    print(json.dumps(words), file=file)
address = words[-1]
if "artifacts" in address:
    if not os.environ.get("FAKE_BASE"):
        sys.exit(22)
    pathlib.Path(words[words.index("--output") + 1]).write_text("base")
elif address.endswith("/user"):
    print(json.dumps({{"id": 5}}))
elif "--request" not in words:
    print(os.environ["FAKE_NOTES"])
else:
    body = next(word for word in words if word.startswith("body@")).removeprefix("body@")
    (log / "posted").write_text(pathlib.Path(body).read_text())
"""


def gitlab(machine: Machine, job: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a job of the template as GitLab's runner does: its lines one after another, in bash."""
    document: dict[str, Any] = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))[job]
    machine.put("curl", CURL)
    machine.env = {key: str(said) for key, said in document["variables"].items()} | {
        "CI_PROJECT_DIR": str(machine.workspace), "CI_PROJECT_ID": "3", "CI_JOB_NAME": "judge",
        "CI_API_V4_URL": "https://gitlab.example/api/v4", "CI_DEFAULT_BRANCH": "main",
        "CI_JOB_TOKEN": "token", "CI_MERGE_REQUEST_IID": "7", "EMBCONFORM_TOKEN": "secret",
        "CI_PIPELINE_URL": "https://gitlab.example/p/1", "CI_MERGE_REQUEST_DIFF_BASE_SHA": "abc",
        "FAKE_NOTES": "[]",
    } | env  # fmt: skip
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(document["script"])], cwd=machine.workspace,
        env=machine.around(ROOT), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("validate", "gate", "code"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (0, 3, 0)])
def test_gitlab_judges_a_merge_request(
    machine: Machine, validate: int, gate: int, code: int
) -> None:
    done = gitlab(
        machine, ".embconform", FAKE_BASE="yes", EMBCONFORM_TARGET=HOSTILE,
        FAKE_VALIDATE=str(validate), FAKE_GATE=str(gate),
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    (words,) = machine.calls("validate")
    assert words[-2:] == ["--", HOSTILE]
    folder = machine.workspace / "embconform-reports"
    assert words[-4:-2] == ["--baseline", str(folder / "base.json")]
    ((*_, target, _, base), *_) = [each[:5] for each in machine.calls("gate")]
    assert (target, base) == (HOSTILE, "abc")
    assert {each.name for each in folder.iterdir()} >= {"report.xml", "gate.xml", "report.md"}
    assert not list(machine.workspace.rglob("owned"))


def test_gitlab_without_a_base_report_or_a_merge_request(machine: Machine) -> None:
    done = gitlab(
        machine, ".embconform", EMBCONFORM_TARGET="a:b", CI_MERGE_REQUEST_DIFF_BASE_SHA=""
    )
    assert done.returncode == 0, done.stderr
    assert "--baseline" not in machine.calls("validate")[0]
    assert not machine.calls("gate")


def test_gitlab_writes_one_note(machine: Machine) -> None:
    folder = machine.workspace / "embconform-reports"
    folder.mkdir()
    (folder / "report.md").write_text("the report\n")
    notes = [
        {"id": 1, "author": {"id": 4}, "body": "<!-- embconform -->\nsomebody else's"},
        {"id": 2, "author": {"id": 5}, "body": "another"},
    ]
    ours = {"id": 3, "author": {"id": 5}, "body": "<!-- embconform -->\nold"}
    for found, way in ((notes, "POST"), ([*notes, ours], "PUT")):
        done = gitlab(machine, ".embconform-comment", FAKE_NOTES=json.dumps(found))
        assert done.returncode == 0, done.stderr
        last = json.loads((machine.log / "curl").read_text().splitlines()[-1])
        assert last[-1].endswith("/merge_requests/7/notes" + ("/3" if way == "PUT" else ""))
        assert way in last
        assert (machine.log / "posted").read_text().startswith("<!-- embconform -->\nthe report\n")


def test_the_how_to_uses_what_there_is() -> None:
    text = (ROOT / "docs/how-to/ci.md").read_text(encoding="utf-8")
    whole, part, gitlab = map(yaml.safe_load, re.findall(r"```yaml\n(.+?)```", text, re.DOTALL))
    (job,) = whole["jobs"].values()
    called = load(ROOT / job["uses"].removeprefix("OWNER/embconform/").removesuffix("@COMMIT"))
    assert job["with"].keys() <= called[True]["workflow_call"]["inputs"].keys()
    granted = {
        key: how for each in called["jobs"].values() for key, how in each["permissions"].items()
    }
    assert job["permissions"] == granted
    last = part["steps"][-1]
    action = load(
        ROOT / last["uses"].removeprefix("OWNER/embconform/").removesuffix("@COMMIT") / "action.yml"
    )
    assert last["with"].keys() <= action["inputs"].keys()
    for name in ("code", "gate-code", "reports"):
        assert name in action["outputs"]
        assert f"`{name}`" in text
    template = yaml.safe_load((ROOT / gitlab["include"][0]["file"]).read_text(encoding="utf-8"))
    for name in ("embconform", "embconform-comment"):
        known = template[gitlab[name]["extends"]]
        assert gitlab[name].get("variables", {}).keys() <= known["variables"].keys()
    pinned = set(re.findall(r"uses: (actions/\S+ # \S+)", text))
    used = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    assert all(each in used for each in pinned)


PACKAGE = """
from torch.nn.functional import embedding


def embed(input, weight, padding_idx=None):
    return embedding(input, weight, padding_idx)
"""


@pytest.mark.slow
def test_a_pull_request_is_judged_for_real(tmp_path: Path) -> None:
    """The steps of the action with the real embconform, on a package with a base and a change."""
    workspace = tmp_path / "workspace"
    package = workspace / "tiny_table"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from tiny_table.table import embed\n")
    (package / "table.py").write_text(PACKAGE)
    base = commit(workspace)
    machine = Machine(tmp_path, workspace, {}, real=True)
    machine.put("embconform", f'#!/bin/sh\nexec "{sys.executable}" -m embconform "$@"\n')
    machine.env = {"PYTHONPATH": str(workspace), "EMBCONFORM_DATABASE": "none"}
    given = {
        "target": "tiny_table:embed", "embconform": "installed", "budget": "quick",
        "select": "padding.*,lookup.rows",
    }  # fmt: skip
    first = machine.run("embconform", **given)
    assert first.code == 0, first.printed
    saved = shutil.copy(Path(first.outputs["reports"], "report.json"), tmp_path / "base.json")

    wrong = PACKAGE.replace("weight, padding_idx)", "weight, padding_idx or None)")
    (package / "table.py").write_text(wrong)
    commit(workspace)
    machine.event = {"pull_request": {"number": 7, "base": {"sha": base}}}
    ran = machine.run(
        "embconform", **given, baseline=str(saved), gate="true",
        gate_arguments="--seconds 1 --select padding.*",
    )  # fmt: skip
    assert ran.code == 1, ran.printed
    assert "`padding.zero-is-an-index`<br>newly broken | pass | fail |" in machine.summary
    assert "embconform gate: regression" in machine.summary
    (comment,) = machine.comments
    assert "is nonconformant" in comment["body"]
    assert "embconform gate: regression" in comment["body"]


def test_expressions_are_filled_as_github_does() -> None:
    context = {"inputs": {"a": "", "b-c": "x"}, "github": {"event": {}}}
    assert fill("<${{ inputs.a || inputs.b-c }}>", context) == "<x>"
    assert fill("<${{ github.event.pull_request.base.sha }}>", context) == "<>"
    assert (ACTIONS / "embconform/action.yml").exists()
