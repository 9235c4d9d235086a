"""Every code block of README and docs is run by a test, or says in the page why it is not.

| block | default run | slow run |
|---|---|---|
| Python, TOML, YAML | run; read | |
| a file to save | compiled | saved, and used by the commands of its page |
| shell | each `embconform` line is read by the command that it calls | the page is followed |
| what is printed | | compared with what the commands before it print |
| marked `not run: REASON` | its `embconform` lines are read all the same | |

Pages with tests of their own stand in ELSEWHERE. Directives are run when the site is built.
The examples in reference/SPEC.md are sketches over names that its head explains; test_clauses
compiles them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections import Counter
from pathlib import Path

import click
import pytest
import yaml
from pages import OURS, ROOT, SHELL, Block, all_blocks, blocks, commands, pages, without_numbers
from repository import copy_repository

from embconform.commands.main import embconform

BLOCKS = all_blocks()
ELSEWHERE = {
    "README.md": "test_readme.py",
    "docs/findings.md": "test_findings.py",
    "docs/findings-cuda.md": "test_findings_cuda.py",
    "docs/textbook-versus-torch.md": "test_textbook_versus_torch.py",
}
SAVED = ("file", "append to", "last entry of")
FOLLOWED = [
    page
    for page in pages()
    if page.startswith("docs/")
    and any(block.language == SHELL and "not run" not in block.marks for block in blocks(page))
]
OF_THE_REPOSITORY = ("docs/how-to/add-a-clause.md", "docs/how-to/read-the-matrix.md")
"""Pages that are followed in a copy of the repository; the others in an empty folder."""
SHORTENED = {
    "validate": ("--max-examples", "60", "--select", "lookup.rows,lookup.shape,errors.negative"),
    "bench": ("--quick", "--seconds", "20"),
}
AS_WRITTEN = tuple(
    f"docs/how-to/{name}.md"
    for name in (
        *("add-a-backend", "add-a-clause", "gate-a-pull-request"),
        *("read-a-failure", "read-the-matrix", "validate-a-backend"),
    )
)
"""Pages that are followed to the letter; in the others SHORTENED is added to each command."""


def way(block: Block) -> str:
    """Say what becomes of a block; empty where nothing does."""
    if block.page in ELSEWHERE:
        return ELSEWHERE[block.page]
    if "not run" in block.marks:
        return "not run" if block.marks["not run"] else ""
    if block.language.startswith("{"):
        return "built"
    if any(mark in block.marks for mark in SAVED):
        return "saved"
    if "prints" in block.marks:
        return "printed"
    return {"python": "run", "toml": "read", "yaml": "read", "json": "read", SHELL: "shell"}.get(
        block.language, ""
    )


def of(*ways: str) -> list[Block]:
    return [block for block in BLOCKS if way(block) in ways]


def test_every_block_is_run_or_says_why_not() -> None:
    assert [str(block) for block in BLOCKS if not way(block)] == []
    counted = Counter(map(way, BLOCKS))
    assert counted["not run"] < len(BLOCKS) / 4
    assert min(counted[each] for each in ("run", "saved", "shell", "printed", "built")) > 0


@pytest.mark.parametrize("block", of("not run"), ids=lambda b: f"{b}: {b.marks['not run']}")
def test_what_is_not_run_gives_a_reason(block: Block) -> None:
    """Each is an item, so that a list of the tests names it with its reason."""
    assert len(block.marks["not run"].split()) > 1
    if block.language == "python":
        compile(block.code, str(block), "exec")


@pytest.mark.parametrize(
    "page",
    [
        "```\nls\n```",
        "    ls\n",
        "```python-repl\n>>> 1\n```",
        "<!-- not run: -->\n```text\na\n```",
        "<!-- not run: needs a GPU -->\n\nwords\n\n```text\na\n```",
        "- a\n\n  ```console\n  $ a\n  ```",
    ],
)
def test_a_block_that_nothing_runs_is_noticed(page: str) -> None:
    assert [way(block) for block in blocks("new.md", page)] == [""]


@pytest.mark.parametrize("page", sorted(ELSEWHERE))
def test_pages_with_tests_of_their_own_name_them(page: str) -> None:
    source = (ROOT / "tests" / ELSEWHERE[page]).read_text(encoding="utf-8")
    assert Path(page).name in source
    if page != "README.md":
        assert {block.language for block in blocks(page)} == {"python"}


@pytest.mark.parametrize("block", of("run", "saved"), ids=str)
def test_python_runs(block: Block) -> None:
    code = compile(block.code, str(block), "exec") if block.language == "python" else None
    if code is not None and way(block) == "run":
        exec(code, {"__name__": "a_page"})
    if code is None:
        tomllib.loads(block.code)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("toml", "yaml")], ids=str)
def test_data_can_be_read(block: Block) -> None:
    read = tomllib.loads if block.language == "toml" else yaml.safe_load
    assert read(block.code)


LINES = [
    (block, words[1:])
    for block in BLOCKS
    for words in (commands(block.code) if block.language == SHELL else ())
    if words and words[0].endswith("embconform")
]


@pytest.mark.parametrize(
    ("block", "words"), LINES, ids=[f"{block} {' '.join(words)}" for block, words in LINES]
)
def test_a_command_line_is_understood(
    block: Block, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    understand(words)


def understand(words: list[str]) -> None:
    """Let the command read its options, and do nothing."""
    name, *arguments = words
    try:
        embconform.commands[name].make_context(name, arguments)
    except click.exceptions.Exit as done:  # as --list does, which does it at once
        if done.exit_code:
            raise


@pytest.mark.parametrize(
    "words",
    [
        "validate mine.py:f --buget quick",
        "validate",
        "matrix a --budget tiny",
        "nothing",
        "gate --bse x",
    ],
)
def test_a_command_line_that_has_gone_stale_is_noticed(words: str) -> None:
    with pytest.raises((click.ClickException, KeyError)):
        understand(words.split())


@pytest.mark.slow  # 10 s of CPU time; .ci/run builds the site too
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "tools" / "docs", tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for page in tmp_path.rglob("*.html"):
        assert not FETCHED.search(page.read_text(encoding="utf-8")), page
    assert (tmp_path / "index.html").exists()
    commands_page = tmp_path / "docs" / "reference" / "commands.html"
    assert "Judge embeddings by every clause" in commands_page.read_text(encoding="utf-8")


@pytest.mark.slow  # starts Sphinx once more
def test_a_broken_link_is_a_warning_and_that_an_error(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A page\n\n[link](no-such-page.md)\n")
    site = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", ROOT / "docs", tmp_path]
    done = subprocess.run([*site, tmp_path / "out"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no-such-page.md" in done.stderr


FETCHED = re.compile(
    r'<(?:script|img|iframe)\b[^>]* src="(?:https?:)?//|<link\b[^>]* href="https?:'
)


def test_what_a_page_would_fetch_is_noticed() -> None:
    assert FETCHED.search('<script async src="https://cdn.example.org/a.js">')
    assert FETCHED.search('<link rel="stylesheet" href="https://fonts.example.org/a.css" />')
    assert not FETCHED.search('<script src="_static/a.js"></script><a href="https://a.org">a</a>')


@pytest.mark.slow  # whole runs of the suite, up to four minutes each
@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_can_be_followed(page: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    environment = outfit(tmp_path, page)
    if page in OF_THE_REPOSITORY:
        environment |= importable_copy(folder)
    if not any("file" in block.marks for block in blocks(page)):
        (folder / "my_package.py").write_text(OURS)
        (folder / "mine.py").write_text(OURS.replace("my_embedding", "embed"))
    follow(blocks(page), folder, environment)


def outfit(place: Path, page: str) -> dict[str, str]:
    """Put the installed commands first on the path, and `embconform` shortened where it must be."""
    bin_ = place / "bin"
    bin_.mkdir()
    call = f"{shlex.quote(sys.executable)} -m embconform"
    lines = ["#!/usr/bin/env bash"]
    if page not in AS_WRITTEN:
        for verb, more in SHORTENED.items():
            lines.append(f'[ "$1" = {verb} ] && set -- "$@" {" ".join(more)}')
        lines.append('set -- "${@/2h/5s}"')  # --for
    lines.append(f'exec {call} "$@"')
    (bin_ / "embconform").write_text("\n".join(lines) + "\n")
    (bin_ / "embconform").chmod(0o755)
    here = Path(sys.executable).parent
    return {
        **os.environ,
        "PATH": f"{bin_}:{here}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(place / "cache"),
        "OMP_NUM_THREADS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_NAME": "a" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "a@example.org" for who in ("AUTHOR", "COMMITTER")},
    }


def importable_copy(folder: Path) -> dict[str, str]:
    """Copy the repository, and let Python import the copy."""
    copy_repository(folder)
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    links = folder / ".links" / "embconform"
    links.mkdir(parents=True)
    for file in (folder / "embconform").iterdir():
        (links / file.name).symlink_to(file)
    for package, where in project["tool"]["setuptools"]["package-dir"].items():
        if "." in package:
            (links / package.partition(".")[2]).symlink_to(folder / where)
    return {"PYTHONPATH": str(links.parent), "PYTHONSAFEPATH": "1"}


def follow(page: list[Block], folder: Path, environment: dict[str, str]) -> None:
    """Do what a page says, block by block."""
    printed = ""
    for block in page:
        if "not run" in block.marks:
            continue
        if way(block) == "saved":
            save(block, folder)
        elif way(block) == "printed":
            assert without_numbers(block.code) == without_numbers(printed), f"{block}\n{printed}"
        elif block.language == SHELL:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.code],
                cwd=folder, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            said = f"{block}\n{done.stdout}\n{done.stderr}"
            assert done.returncode == int(block.marks.get("exit", "0")), said
            printed = done.stdout


def save(block: Block, folder: Path) -> None:
    """Write a block to the file that its mark names."""
    (mark,) = (mark for mark in SAVED if mark in block.marks)
    path = folder / block.marks[mark]
    if mark == "file":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.code)
        return
    before = path.read_text()
    if mark == "last entry of":
        assert before.endswith("\n)\n")
        path.write_text(f"{before[:-2]}{textwrap.indent(block.code.rstrip(), '    ')},\n)\n")
    else:
        path.write_text(f"{before}\n\n{block.code}")


def test_what_a_page_prints_is_compared(tmp_path: Path) -> None:
    page = "```bash\necho 3 cases in 1.5 s\n```\n\n<!-- prints -->\n```text\n{}\n```\n"
    follow(blocks("new.md", page.format("7 cases in 2 s")), tmp_path, dict(os.environ))
    with pytest.raises(AssertionError, match="cases in"):
        follow(blocks("new.md", page.format("no cases in 2 s")), tmp_path, dict(os.environ))
    with pytest.raises(AssertionError, match=r"new\.md:2"):
        follow(blocks("new.md", "<!-- exit: 2 -->\n```bash\nexit 1\n```\n"), tmp_path, {})


def test_files_are_saved_where_their_marks_say(tmp_path: Path) -> None:
    (tmp_path / "clauses.py").write_text("ALL = (\n    1,\n)\n")
    page = (
        "<!-- last entry of: clauses.py -->\n```python\n2\n```\n\n"
        "<!-- append to: clauses.py -->\n```python\nassert ALL == (1, 2)\n```\n"
    )
    follow(blocks("new.md", page), tmp_path, {})
    exec((tmp_path / "clauses.py").read_text(), {})
