"""Runs the steps of this repository's actions as a runner of GitHub does, with stand-ins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ACTIONS = ROOT / ".github/actions"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
EVERY_FILE = [*sorted(ACTIONS.glob("*/action.yml")), *WORKFLOWS]
_EXPRESSION = re.compile(r"\$\{\{(.+?)\}\}")

EMBCONFORM = """#!/usr/bin/env bash
# stands in for embconform: notes how it was called, and writes what it is asked for
printf '%s\\0' "$@" >> "$LOG/embconform"
printf '\\n' >> "$LOG/embconform"
code=$FAKE_VALIDATE
[ "$1" = validate ] || code=$FAKE_GATE
while [ $# -gt 0 ]; do
  case $1 in
    --json | --junit | --markdown) [ "$code" = 2 ] || echo "$1 of $FAKE_SAID" > "$2"; shift ;;
  esac
  shift
done
exit "$code"
"""
GH = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys
assert os.environ["GH_TOKEN"] == "secret"
log = pathlib.Path(os.environ["LOG"])
words = sys.argv[1:]
with (log / "gh").open("a") as file:
    print(json.dumps(words), file=file)
if os.environ.get("FAKE_FORBIDDEN"):
    sys.exit("HTTP 403")
store = log / "comments.json"
comments = json.loads(store.read_text()) if store.exists() else []
if "--jq" in words:
    query = ["jq", "-r", words[words.index("--jq") + 1]]
    sys.exit(subprocess.run(query, input=json.dumps(comments), text=True).returncode)
body = pathlib.Path(words[words.index("-F") + 1].removeprefix("body=@")).read_text()
address = words[words.index("--method") + 2]
if "POST" in words:
    assert address == "repos/me/mine/issues/7/comments", address
    comments.append({{"id": len(comments) + 1, "user": {{"login": "github-actions[bot]"}}, "body": body}})
else:
    number = int(address.removeprefix("repos/me/mine/issues/comments/"))
    next(each for each in comments if each["id"] == number)["body"] = body
store.write_text(json.dumps(comments))
"""  # noqa: E501


def load(path: Path) -> dict[Any, Any]:
    """Read YAML; the key ``on`` comes out as True."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def steps(path: Path) -> list[dict[str, Any]]:
    """List the steps of an action, or of all jobs of a workflow."""
    document = load(path)
    if "runs" in document:
        return list(document["runs"]["steps"])
    return [step for job in document["jobs"].values() for step in job["steps"]]


@dataclass
class Ran:
    """What became of an action: its exit code, its outputs and what it printed."""

    code: int
    outputs: dict[str, str]
    printed: str


@dataclass
class Machine:
    """A machine of GitHub's: folders, files of the runner and commands that stand in for others."""

    home: Path
    workspace: Path
    event: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    real: bool = False

    def __post_init__(self) -> None:
        for name in ("bin", "log", "temp"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        self.put("gh", GH)
        if not self.real:
            self.put("embconform", EMBCONFORM)
            self.put("python", '#!/bin/sh\nprintf "%s\\n" "$@" >> "$LOG/python"\n')

    @property
    def log(self) -> Path:
        return self.home / "log"

    @property
    def summary(self) -> str:
        return (self.home / "summary").read_text(encoding="utf-8")

    @property
    def comments(self) -> list[dict[str, Any]]:
        store = self.log / "comments.json"
        return list(json.loads(store.read_text())) if store.exists() else []

    def put(self, name: str, script: str) -> None:
        """Put a command on PATH."""
        file = self.home / "bin" / name
        file.write_text(script)
        file.chmod(0o755)

    def calls(self, verb: str) -> list[list[str]]:
        """List how the stand-in of embconform was called."""
        log = self.log / "embconform"
        lines = log.read_text().split("\0\n")[:-1] if log.exists() else []
        return [words for line in lines if (words := line.split("\0"))[0] == verb]

    def run(self, name: str, **given: str) -> Ran:
        """Run an action with some inputs, written with ``_`` for ``-``."""
        path = ACTIONS / name / "action.yml"
        document = load(path)
        inputs = {key: str(said.get("default", "")) for key, said in document["inputs"].items()}
        github = {"event": self.event, "token": "secret"}
        inputs = {key: fill(value, {"github": github}) for key, value in inputs.items()}
        unknown = {key.replace("_", "-") for key in given} - inputs.keys()
        assert not unknown, unknown
        inputs |= {key.replace("_", "-"): value for key, value in given.items()}
        context: dict[str, Any] = {"inputs": inputs, "github": github, "steps": {}}
        printed = ""
        for step in document["runs"]["steps"]:
            if "if" in step and not value(step["if"], context):
                continue
            ran = self._step(step, path.parent, context)
            printed += ran.printed
            context["steps"][step.get("id", "")] = {"outputs": ran.outputs}
            if ran.code:
                return Ran(ran.code, {}, printed)
        told = document.get("outputs", {})
        return Ran(0, {key: fill(said["value"], context) for key, said in told.items()}, printed)

    def _step(self, step: dict[str, Any], here: Path, context: Mapping[str, Any]) -> Ran:
        if "uses" in step:
            name = step["uses"].removeprefix("$/.github/actions/")
            given = {
                key.replace("-", "_"): fill(said, context) for key, said in step["with"].items()
            }
            return self.run(name, **given)
        output = self.home / "output"
        output.write_text("")
        env = {key: fill(str(said), context) for key, said in step.get("env", {}).items()}
        env = self.around(here) | {"GITHUB_OUTPUT": str(output)} | env
        assert step["shell"] == "bash"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.workspace / fill(step.get("working-directory", "."), context),
            env=env, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        pairs = [line.partition("=") for line in output.read_text().splitlines()]
        return Ran(done.returncode, {a: b for a, _, b in pairs}, done.stdout + done.stderr)

    def around(self, here: Path) -> dict[str, str]:
        """Give the environment that a runner's step has."""
        kept = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        return kept | {
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "LOG": str(self.log), "RUNNER_TEMP": str(self.home / "temp"),
            "GITHUB_ACTION_PATH": str(here), "GITHUB_STEP_SUMMARY": str(self.home / "summary"),
            "GITHUB_REPOSITORY": "me/mine", "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_RUN_ID": "42",
            "FAKE_VALIDATE": "0", "FAKE_GATE": "0", "FAKE_SAID": "first",
        } | self.env  # fmt: skip


def fill(text: str, context: Mapping[str, Any]) -> str:
    """Replace the expressions in a text."""
    return _EXPRESSION.sub(lambda match: str(value(match[1], context)), text)


def value(expression: str, context: Mapping[str, Any]) -> Any:
    """Evaluate what these actions use: names, texts, ``==`` and ``||``."""
    if "||" in expression:
        found = [value(part, context) for part in expression.split("||")]
        return next((each for each in found if each), found[-1])
    if "==" in expression:
        left, right = expression.split("==")
        return value(left, context) == value(right, context)
    word = expression.strip()
    if word.startswith("'"):
        return word.strip("'")
    assert re.fullmatch(r"\w+(\.[\w-]+)+", word), expression
    found_here: Any = context
    for part in word.split("."):
        found_here = found_here.get(part, "") if isinstance(found_here, Mapping) else ""
    return found_here
